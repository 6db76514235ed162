/**
 * Opens all that a process opens of libc, once: imported, it keeps tests from
 * being blamed for what the first of them to need it would open.
 *
 * @module
 */

import { sharedLibc } from "../src/libc/libc.ts";

sharedLibc();
