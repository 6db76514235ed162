/**
 * The status page: one file, which may ask nobody but its own server.
 *
 * @module
 */

import { createHash } from "node:crypto";
import draw from "./page/draw.js" with { type: "text" };
import format from "./page/format.js" with { type: "text" };
import main from "./page/main.js" with { type: "text" };
import measure from "./page/measure.js" with { type: "text" };
import style from "./page/page.css" with { type: "text" };
import html from "./page/page.html" with { type: "text" };

/** The modules as one, without comments on lines of their own. */
export const SCRIPT: string = [measure, format, draw, main].join("")
  .replaceAll(/^import [^;]*;\n|^export /gm, "")
  .replaceAll(/^ *(?:\/\*\*[^]*?\*\/|\/\/.*)\n|\/\*\*.*?\*\/ /gm, "")
  .replaceAll(/\n{2,}/g, "\n");

/** The whole page. */
export const PAGE: string = html
  .replace("</style>", () => `${style}</style>`)
  .replace("</script>", () => `${SCRIPT}</script>`);

/** The headers that allow the page its own style and script, its own server, and nothing else. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  "content-security-policy": [
    "default-src 'none'",
    `style-src ${hash(style)}`,
    `script-src ${hash(SCRIPT)}`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "referrer-policy": "no-referrer",
};

/** As a source in a content security policy. */
function hash(text: string): string {
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}
