import { assert, assertEquals } from "@std/assert";
import { run, ServeProcess, SOURCE } from "../scripts/program.ts";

const FIELDS = ["ntp.flags.vn", "ntp.flags.mode", "ntp.stratum", "ntp.refid", "ntp.org", "ntp.xmt"];

/** Can this process capture on the loopback interface? */
async function missing(): Promise<string | null> {
  try {
    const { code } = await new Deno.Command("tshark", { args: ["-i", "lo", "-L"] }).output();
    return code === 0 ? null : "tshark may not capture here";
  } catch {
    return "tshark is not installed";
  }
}

const reason = await missing();
if (reason !== null) console.log(`wireshark: skipped, ${reason}`);

for (const transport of ["tcp", "udp"] as const) {
  const name = `tshark decodes a session over ${transport.toUpperCase()} as NTP version 4`;
  Deno.test({ name, ignore: reason !== null }, async () => {
    const args = ["--host", "127.0.0.1", "--port", "0", "--udp-port", "0", "--stratum", "3"];
    await using server = await ServeProcess.start(SOURCE, args);
    const udp = String((await server.nextEvent())!["address"]);
    const address = transport === "tcp" ? server.address : `ntp://${udp}`;
    const port = address.split(":").at(-1);
    const samples = transport === "tcp" ? "5" : "1";
    const filter = `${transport} port ${port}${transport === "tcp" ? " and greater 100" : ""}`;
    const tshark = new Deno.Command("tshark", {
      args: ["-i", "lo", "-f", filter, "-c", "12", "-d", `${transport}.port==${port},ntp`]
        .concat("-T", "fields", "-E", "separator=|")
        .concat(FIELDS.flatMap((field) => ["-e", field])),
      stdout: "piped",
      stderr: "null",
    }).spawn();
    const output = tshark.output();
    let captured = false;
    output.finally(() => captured = true);
    while (!captured) await run(SOURCE, "sync", "--quiet", "--samples", samples, address);
    const { stdout } = await output;
    const rows = new TextDecoder().decode(stdout).trim().split("\n").map((row) => row.split("|"));
    assertEquals(rows.length, 12);
    const requests = rows.filter(([, mode]) => mode === "3");
    const replies = rows.filter(([, mode]) => mode !== "3");
    for (const request of requests) {
      assertEquals(request.slice(0, 5), ["4", "3", "0", "00000000", "NULL"]);
    }
    for (const reply of replies) {
      assertEquals(reply.slice(0, 4), ["4", "4", "3", "4c4f434c"]);
      const year = new Date().getUTCFullYear();
      assertEquals(reply[5]!.includes(` ${year} `), true, reply[5]);
    }
    // The capture may begin between a request and its reply.
    const nonces = new Set(requests.map((request) => request[5]));
    const isAnswer = replies.map((reply) => nonces.has(reply[4]));
    const sinceFirst = isAnswer.slice(isAnswer.indexOf(true));
    assert(sinceFirst.length >= 2 && !sinceFirst.includes(false), "the origin is the nonce");
  });
}
