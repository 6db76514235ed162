import { assertEquals } from "@std/assert";

/** From the top: each imports only from itself and what stands below it. */
const LAYERS = ["main", "cli", "mod", "serve", "sync", "net", "clock", "estimate", "ntp"];

/** What only some files may do. */
const RESERVED: [RegExp, RegExp][] = [
  [/\bDeno\.(listen|connect|listenTls|connectTls|startTls|listenDatagram)\(/, /^src\/net\//],
  [/\bDeno\.dlopen\(/, /^src\/clock\/libc\.ts$/],
  [/\bDeno\.exit\(/, /^main\.ts$/],
  [
    /\b(Date\.now|performance\.now|new Date|Temporal\.Now|Math\.random|setTimeout)\b/,
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

Deno.test("imports point downward only", () => {
  const upward: string[] = [];
  for (const file of files) {
    const text = Deno.readTextFileSync(file);
    for (const [, specifier] of text.matchAll(/from "(\.[^"]+\.ts)"/g)) {
      const imported = new URL(specifier!, `file:///${file}`).pathname.slice(1);
      if (layerOf(imported) < layerOf(file)) upward.push(`${file} imports ${imported}`);
    }
  }
  assertEquals(upward, []);
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
