/**
 * Text that comes from others.
 *
 * @module
 */

/**
 * Text that is safe to show: characters that a terminal would obey, not show, or show in another
 * order are written as `\x1b` or `\u{202e}`. Use it wherever a message quotes what a peer sent.
 */
export function printable(text: string): string {
  return text.replaceAll(/(?! )[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/gu, (character) => {
    const code = character.codePointAt(0)!.toString(16);
    return code.length > 2 ? `\\u{${code}}` : `\\x${code.padStart(2, "0")}`;
  });
}
