/**
 * `deno run -R scripts/release_notes.ts TAG [OWNER/NAME]`: prints what CHANGELOG
 * says of a version, if it is the one that a release would be of; after how to
 * install it, if it is told the repository that publishes it.
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

/** How to install what a repository publishes. */
export function howToInstall(tag: string, repository: string): string {
  const page = `https://github.com/${repository}`;
  return `On Linux or macOS, x86-64 or arm64:

\`\`\`sh
curl -fsSL ${page}/releases/latest/download/install.sh | sh
\`\`\`

Below are also packages for Debian and Ubuntu, and a formula for Homebrew. [Installing and running
it](${page}/blob/${tag}/docs/operation.md) tells the rest. macOS quarantines what a browser
downloads: \`xattr -d com.apple.quarantine FILE\` lets it run.`;
}

if (import.meta.main) {
  const { version } = JSON.parse(await Deno.readTextFile("deno.json"));
  const [tag = "", repository] = Deno.args;
  try {
    const notes = releaseNotes(tag, version, await Deno.readTextFile("CHANGELOG.md"));
    console.log(
      repository === undefined
        ? notes
        : `${howToInstall(tag, repository)}\n\n## Changes\n\n${notes}`,
    );
  } catch (error) {
    console.error(`release: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
