/**
 * Conformance: every case against volary, and against nbdkit and qemu-nbd to prove the cases. What a server does
 * must be permitted by the document, or be listed in deviations.ts exactly as it is.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cases } from './cases/all.ts';
import { choices } from './choices.ts';
import { deviations, lacks, sometimes, sometimesFatal } from './deviations.ts';
import { type Case, Lab } from './lab.ts';
import { type ServerName, serverNames, startTarget, type Target } from './servers.ts';

test('every case has a name of its own', () => {
  const names = cases.map(({ name }) => name);
  expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
});

/** The deviation that is listed for a case, and under which heading. */
function deviationOf(server: ServerName, name: string): { section: string; seen: string } | undefined {
  for (const { section, does } of deviations[server]) {
    const seen = does[name];
    if (seen !== undefined) return { section, seen };
  }
  return undefined;
}

test('the tables name cases that exist, under the headings that they have', () => {
  const sections = new Map(cases.map(({ name, section }) => [name, section]));
  const wrong = serverNames.flatMap((server) =>
    deviations[server].flatMap(({ section, does }) =>
      Object.keys(does).filter((name) => sections.get(name) !== section),
    ),
  );
  expect([...wrong, ...Object.keys(choices).filter((name) => !sections.has(name))]).toEqual([]);
});

test('where the document leaves a choice, the choice of volary is listed', () => {
  const open = cases.filter(({ permits }) => permits.length > 1).map(({ name }) => name);
  expect(Object.keys(choices).toSorted()).toEqual(open.toSorted());
});

test('volary deviates from nothing', () => {
  expect(deviations.volary).toEqual([]);
});

/** Throws unless the observation is what the document, or the table of deviations, says. */
function judge(server: ServerName, one: Case, seen: string): void {
  if (sometimesFatal[server]?.test(one.name) && seen.endsWith('the server died')) return;
  const race = sometimes[server];
  if (race?.name.test(one.name) && race.seen.test(seen)) return;
  const deviation = deviationOf(server, one.name);
  if (deviation !== undefined) {
    expect(one.permits, `${server} no longer deviates in "${one.name}"`).not.toContain(seen);
    expect(seen, `the deviation of ${server} is listed differently`).toBe(deviation.seen);
    return;
  }
  expect(one.permits, `${server}: ${one.section}`).toContain(seen);
  if (server === 'volary' && one.permits.length > 1)
    expect([choices[one.name]].flat(), 'another choice than volary is known for').toContain(seen);
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

    test('no case has killed the server behind its back', () => {
      if (sometimesFatal[server] === undefined) expect(lab.diedBetweenCases).toBe(0);
      else expect(lab.diedBetweenCases).toBeLessThan(10);
    });

    test('lacks exactly what is listed', () => {
      expect([...lacking].sort()).toEqual([...lacks[server]].sort());
    });
  });
}
