import { assertEquals } from "@std/assert";

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
