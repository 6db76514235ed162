/**
 * Opens all that a process opens of libc, once: imported, it keeps tests from
 * being blamed for what the first of them to need it would open.
 *
 * @module
 */

import { systemClock } from "../src/clock/system_clock.ts";
import { hangUp } from "../src/net/descriptors.ts";
import { libcSockets } from "../src/net/linux/socket.ts";

systemClock();
libcSockets();
hangUp([]);
