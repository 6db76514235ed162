import { assertEquals, assertThrows } from "@std/assert";
import { describe, it } from "@std/testing/bdd";
import { Admission, type Client, type Limits } from "../src/serve/admission.ts";

const SECOND = 1_000_000_000n;

describe("Admission.allows()", () => {
  const rows: [string, Limits, string, boolean][] = [
    ["everybody by default", {}, "192.0.2.7", true],
    ["nobody who is denied", { deny: ["192.0.2.0/24"] }, "192.0.2.7", false],
    ["others than the denied", { deny: ["192.0.2.0/24"] }, "192.0.3.7", true],
    ["who is allowed", { allow: ["192.0.2.0/24"] }, "192.0.2.7", true],
    ["nobody else than the allowed", { allow: ["192.0.2.0/24"] }, "192.0.3.7", false],
    ["by the longest prefix", { allow: ["10.1.0.0/16"], deny: ["10.0.0.0/8"] }, "10.1.2.3", true],
    [
      "by the longest, the other way",
      { allow: ["10.0.0.0/8"], deny: ["10.1.0.0/16"] },
      "10.1.2.3",
      false,
    ],
    [
      "nobody both allowed and denied",
      { allow: ["10.0.0.0/8"], deny: ["10.0.0.0/8"] },
      "10.1.2.3",
      false,
    ],
    ["a single address", { allow: ["192.0.2.7"] }, "192.0.2.7", true],
    ["IPv6", { deny: ["2001:db8::/32"] }, "2001:db8::7", false],
    ["mapped IPv4 as IPv4", { deny: ["192.0.2.0/24"] }, "::ffff:192.0.2.7", false],
    ["mapped IPv4 not as IPv6", { deny: ["::/0"] }, "::ffff:192.0.2.7", true],
    ["by a mapped prefix as IPv4", { deny: ["::ffff:192.0.2.0/120"] }, "192.0.2.7", false],
    ["by a mapped address as IPv4", { allow: ["::ffff:192.0.2.7"] }, "192.0.2.7", true],
    ["nobody under 0.0.0.0/0", { deny: ["0.0.0.0/0"] }, "192.0.2.7", false],
  ];
  for (const [name, limits, address, expected] of rows) {
    it(`answers ${name}`, () => assertEquals(new Admission(limits).allows(address), expected));
  }

  for (
    const prefix of [
      "",
      "host",
      "10.0.0.0/33",
      "::/129",
      "10.0.0.0/",
      "10.0.0.0/8/8",
      "10.0.0/8",
      "fe80::1%eth0",
    ]
  ) {
    it(`refuses the prefix "${prefix}"`, () => {
      assertThrows(() => new Admission({ allow: [prefix] }), SyntaxError, "as a prefix");
    });
  }
});

describe("Admission.connect()", () => {
  it("counts all connections and those of each address", () => {
    const admission = new Admission({ maxClients: 3, maxClientsPerAddress: 2 });
    const one = admission.connect("192.0.2.1", 0n) as Client;
    assertEquals(typeof admission.connect("::ffff:192.0.2.1", 0n), "object");
    assertEquals(admission.connect("192.0.2.1", 0n), "max-clients-per-address");
    assertEquals(typeof admission.connect("192.0.2.2", 0n), "object");
    assertEquals(admission.connect("192.0.2.3", 0n), "max-clients");
    admission.disconnect(one);
    assertEquals(admission.connections, 2);
    assertEquals(typeof admission.connect("192.0.2.1", 0n), "object");
  });

  it("remembers nothing of those that are not admitted", () => {
    const admission = new Admission({ deny: ["::/0"], maxClients: 0 });
    assertEquals(admission.connect("2001:db8::1", 0n), "denied");
    assertEquals(admission.connect("192.0.2.1", 0n), "max-clients");
    assertEquals(admission.addresses, 0);
  });
});

describe("Admission.request()", () => {
  it("lets four seconds' worth through at once and the rate thereafter, over all connections", () => {
    const admission = new Admission({ rate: 10 });
    const client = admission.connect("192.0.2.1", 0n) as Client;
    const other = admission.connect("192.0.2.1", 0n) as Client;
    const answered = (now: bigint) => {
      let count = 0;
      while (admission.request(count % 2 === 0 ? client : other, now)) count++;
      return count;
    };
    assertEquals(answered(0n), 40);
    assertEquals(answered(SECOND), 10);
    assertEquals(answered(SECOND / 2n), 0, "it waited to be read");
    assertEquals(answered(3n * SECOND / 2n), 5, "what was before adds nothing again");
    assertEquals(answered(-100n * SECOND), 0, "the clock was set back");
    assertEquals(answered(-99n * SECOND), 10);
    assertEquals(answered(100n * SECOND), 40);
  });

  it("knows no limit at rate 0", () => {
    const admission = new Admission({ rate: 0 });
    const client = admission.connect("192.0.2.1", 0n) as Client;
    for (let i = 0; i < 100_000; i++) assertEquals(admission.request(client, 0n), true);
  });
});

describe("Admission.forget()", () => {
  it("forgets an address only when nothing would change by it", () => {
    const admission = new Admission();
    const client = admission.connect("192.0.2.1", 0n) as Client;
    admission.request(client, 0n);
    admission.forget(100n * SECOND);
    assertEquals(admission.addresses, 1, "it is connected");
    admission.disconnect(client);
    admission.forget(SECOND);
    assertEquals(admission.addresses, 1, "its bucket may not be full");
    admission.forget(4n * SECOND);
    assertEquals(admission.addresses, 0);
  });
});
