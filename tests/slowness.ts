/**
 * How many times slower than usual programs run here: many times under emulation
 * (`tests/arm64`). Silence is waited for so much longer; crowds and samples are so much smaller.
 *
 * @module
 */

/** Default: 1; `TSYNC_TEST_SLOWNESS` says otherwise. */
export const SLOWNESS = Number(Deno.env.get("TSYNC_TEST_SLOWNESS") ?? 1);

/** Seconds, for `--timeout`: what says nothing for so long is silent. */
export const SILENCE = String(0.5 * SLOWNESS);

/** Seconds, for `--timeout`: longer than whatever answers takes. */
export const PATIENCE = "60";
