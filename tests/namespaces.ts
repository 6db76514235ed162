/**
 * Network namespaces, which have their addresses to themselves: nothing of
 * them is seen outside.
 *
 * @module
 */

/** What a command says. @throws {Error} with its complaint, if it fails. */
export async function output(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args }).output();
  if (!success) throw new Error(new TextDecoder().decode(stderr).trim());
  return new TextDecoder().decode(stdout);
}

/** Makes some, and removes them when the body is over. */
export async function withNamespaces<T>(
  count: number,
  body: (...names: string[]) => Promise<T>,
): Promise<T> {
  const unique = `tsync-${crypto.randomUUID().slice(0, 8)}`;
  const made: string[] = [];
  try {
    for (let i = 0; i < count; i++) {
      const name = `${unique}-${i}`;
      await output("ip", "netns", "add", name);
      made.push(name);
    }
    return await body(...made);
  } finally {
    await Promise.all(made.map((name) => output("ip", "netns", "delete", name)));
  }
}

/** What keeps them from being made here. */
export async function namespacesObstacle(): Promise<string | null> {
  if (Deno.build.os !== "linux") return "this is not Linux";
  if (Deno.uid() !== 0) return "only root can make network namespaces";
  try {
    await withNamespaces(1, (name) => output("ip", "netns", "exec", name, "true"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "ip is not installed";
    return `network namespaces cannot be made: ${(error as Error).message}`;
  }
  return null;
}
