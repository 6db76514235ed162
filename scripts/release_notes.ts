/**
 * `deno run -R scripts/release_notes.ts TAG`: prints what CHANGELOG says of a
 * version, if it is the one that a release would be of.
 *
 * @module
 */

/**
 * The top entry of a changelog.
 *
 * @throws {Error} if it is not of this version.
 */
export function releaseNotes(tag: string, version: string, changelog: string): string {
  if (tag !== `v${version}`) {
    throw new Error(`the tag is ${tag}, but the version in deno.json is ${version}`);
  }
  const [, top, notes] = /^## (\S+).*\n([^]*?)(?=\n## |$(?![^]))/m.exec(changelog) ?? [];
  if (top !== version) {
    throw new Error(`the top entry of CHANGELOG.md is ${top}, but the version is ${version}`);
  }
  return notes!.trim();
}

if (import.meta.main) {
  const { version } = JSON.parse(await Deno.readTextFile("deno.json"));
  try {
    console.log(releaseNotes(Deno.args[0] ?? "", version, await Deno.readTextFile("CHANGELOG.md")));
  } catch (error) {
    console.error(`release: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
