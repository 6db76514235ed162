import { assert, assertEquals } from "@std/assert";

/** From the top: each imports only from itself and what stands below it. */
const LAYERS = ["main", "cli", "mod", "serve", "sync", "net", "clock", "libc", "estimate", "ntp"];

/** What only some files may do. */
const RESERVED: [RegExp, RegExp][] = [
  [/\bDeno\.(listen|connect|listenTls|connectTls|startTls|listenDatagram)\(/, /^src\/net\//],
  [/\bDeno\.dlopen\(/, /^src\/libc\/libc\.ts$/],
  [/\bDeno\.exit\(/, /^main\.ts$/],
  [
    /\b(Date\.now|performance\.now|new Date(?!\(\w)|Temporal\.Now|Math\.random|setTimeout)\b/,
    /^src\/(clock|cli|net)\//,
  ],
];

function* sources(directory: string): Generator<string> {
  for (const { name, isDirectory } of Deno.readDirSync(directory)) {
    if (isDirectory) yield* sources(`${directory}/${name}`);
    else if (name.endsWith(".ts")) yield `${directory}/${name}`;
  }
}

const files = ["main.ts", ...sources("src")];
const layerOf = (file: string) => LAYERS.indexOf(/^(?:src\/)?(\w+)/.exec(file)![1]!);

/** What a file imports, or may import later. */
function importsOf(file: string): string[] {
  const specifiers = Deno.readTextFileSync(file).matchAll(
    /(?:from|import)\s*\(?\s*"(\.[^"]+\.[tj]s)"/g,
  );
  return [...specifiers].map(([, specifier]) =>
    new URL(specifier!, `file:///${file}`).pathname.slice(1)
  );
}

const imports = new Map(files.map((file) => [file, importsOf(file)]));

Deno.test("imports point downward only", () => {
  const upward = [...imports].flatMap(([file, imported]) =>
    imported.filter((each) => layerOf(each) < layerOf(file)).map((each) => `${file}: ${each}`)
  );
  assertEquals(upward, []);
});

Deno.test("imports go round in no circle", () => {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
    if (done.has(file) || path.includes(file)) return;
    for (const each of imports.get(file) ?? []) visit(each, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
  assertEquals(circles, []);
});

/** What few ask for, and would make everybody wait at the start. */
const LOADED_WHEN_ASKED_FOR = [
  "src/cli/clockbound.ts",
  "src/cli/key_file.ts",
  "src/cli/service_manager.ts",
  "src/cli/watch_http.ts",
  "src/net/proxy.ts",
  "src/ntp/keys.ts",
  "src/serve/status/http_server.ts",
  "src/serve/status/status.ts",
];

Deno.test("what few ask for is loaded only then", () => {
  const loaded = new Set<string>();
  const load = (file: string): void => {
    if (loaded.has(file)) return;
    loaded.add(file);
    const code = Deno.readTextFileSync(file);
    const statically = code.matchAll(/^(?:import|export)(?! type)[^;]*? from "(\.[^"]+\.ts)"/gm);
    for (const [, specifier] of statically) {
      load(new URL(specifier!, `file:///${file}`).pathname.slice(1));
    }
  };
  for (const command of ["serve", "sync", "watch"]) load(`src/cli/${command}_command.ts`);
  load("main.ts");
  assert(loaded.size > 50, `only ${loaded.size} files were found`);
  assertEquals(LOADED_WHEN_ASKED_FOR.filter((file) => loaded.has(file)), []);
  for (const file of LOADED_WHEN_ASKED_FOR) assert(imports.has(file), `there is no ${file}`);
});

Deno.test("each layer does only what is its own", () => {
  const strayed: string[] = [];
  for (const file of files) {
    const code = Deno.readTextFileSync(file).replaceAll(/\/\*[^]*?\*\/|\/\/.*/g, "");
    for (const [what, where] of RESERVED) {
      const found = what.exec(code);
      if (found !== null && !where.test(file)) strayed.push(`${file}: ${found[0]}`);
    }
  }
  assertEquals(strayed, []);
});
