/**
 * Conformance: every case against volary, and against nbdkit and qemu-nbd to prove the cases. What a server does
 * must be permitted by the document, or be listed in deviations.ts exactly as it is.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cases } from './cases/all.ts';
import { choices, deviations, lacks } from './deviations.ts';
import { type Case, Lab } from './lab.ts';
import { type ServerName, serverNames, startTarget, type Target } from './servers.ts';

test('every case has a name of its own', () => {
  const names = cases.map(({ name }) => name);
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
});

test('the tables name cases that exist', () => {
  const names = new Set(cases.map(({ name }) => name));
  const listed = [
    ...serverNames.flatMap((server) => Object.keys(deviations[server])),
    ...Object.keys(choices),
  ];
  expect(listed.filter((name) => !names.has(name))).toEqual([]);
});

test('volary deviates from nothing', () => {
  expect(deviations.volary).toEqual({});
});

/** Throws unless the observation is what the document, or the table of deviations, says. */
function judge(server: ServerName, one: Case, seen: string): void {
  const deviation = deviations[server][one.name];
  if (deviation !== undefined) {
    expect(one.permits, `${server} no longer deviates in "${one.name}"`).not.toContain(seen);
    expect(seen, `the deviation of ${server} is listed differently`).toBe(deviation);
    return;
  }
  expect(one.permits, `${server}: ${one.section}`).toContain(seen);
  if (server === 'volary' && one.permits.length > 1)
    expect(seen, 'the choice that volary is known for').toBe(choices[one.name]);
}

for (const server of serverNames) {
  describe(server, () => {
    const lacking = new Set<string>();
    let target: Target;
    let lab: Lab;

    beforeAll(async () => {
      target = await startTarget(server);
      lab = new Lab(target);
    });

    afterAll(async () => {
      lab?.close();
      await target?.stop();
    });

    for (const one of cases)
      test(`${one.name} [${one.section}]`, async () => {
        const seen = await lab.run(one);
        if (seen.startsWith('lacks ')) {
          lacking.add(seen);
          expect(lacks[server], `${server} does not know what "${one.name}" needs`).toContain(seen);
        } else judge(server, one, seen);
      });

    test('lacks exactly what is listed', () => {
      expect([...lacking].sort()).toEqual([...lacks[server]].sort());
    });
  });
}
