/**
 * Text that others have a say in.
 *
 * @module
 */

/**
 * Text as it can be shown: what a terminal would obey, or would show as nothing, or in another
 * order, is written as `\x1b` or `\u{202e}`. To be used wherever text is made of what a peer sent.
 */
export function printable(text: string): string {
  return text.replaceAll(/(?! )[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}]/gu, (character) => {
    const code = character.codePointAt(0)!.toString(16);
    return code.length > 2 ? `\\u{${code}}` : `\\x${code.padStart(2, "0")}`;
  });
}
