/**
 * The status page: one file, which may do nothing but ask its own server.
 *
 * @module
 */

import { createHash } from "node:crypto";
import style from "./page.css" with { type: "text" };
import html from "./page.html" with { type: "text" };
import script from "./page.js" with { type: "text" };

/** The whole page. */
export const PAGE: string = html
  .replace("</style>", () => `${style}</style>`)
  .replace("</script>", () => `${script}</script>`);

/** What a browser is to allow it: its own style and script and no others, and its own server. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy": [
    "default-src 'none'",
    `style-src ${hash("style")}`,
    `script-src ${hash("script")}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "referrer-policy": "no-referrer",
};

/** Of what stands in an element. */
function hash(element: string): string {
  const text = new RegExp(`<${element}\\b[^>]*>([^]*?)</${element}>`).exec(PAGE)![1]!;
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}
