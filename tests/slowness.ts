/**
 * How much slower programs run here than usual, as under emulation (`tests/arm64`): tests wait that
 * much longer for silence, and make crowds and samples that much smaller.
 *
 * @module
 */

/** Default: 1; `TSYNC_TEST_SLOWNESS` says otherwise. */
export const SLOWNESS = Number(Deno.env.get("TSYNC_TEST_SLOWNESS") ?? 1);
if (!(SLOWNESS >= 1)) throw new Error("TSYNC_TEST_SLOWNESS must be a number of at least 1");

/** Seconds, for `--timeout`: what says nothing for so long is silent. */
export const SILENCE = String(0.5 * SLOWNESS);

/** Seconds, for `--timeout`: more than enough for whatever answers. */
export const PATIENCE = "60";
