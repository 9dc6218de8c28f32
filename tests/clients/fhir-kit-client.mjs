// The npm client `fhir-kit-client`, unchanged: create, read, update, search with pages, transaction, delete, errors.
import assert from 'node:assert/strict';
import * as module from 'fhir-kit-client';

const Client = module.Client ?? module.default?.Client ?? module.default;
const client = new Client({ baseUrl: process.env.FHIR_BASE, bearerToken: process.env.FHIR_TOKEN });

const statement = await client.capabilityStatement();
assert.equal(statement.fhirVersion, '4.0.1');

const made = await client.create({
  resourceType: 'Patient',
  body: { resourceType: 'Patient', name: [{ family: 'Kit', given: ['One'] }], birthDate: '1980-01-02' },
});
assert.ok(made.id);
const read = await client.read({ resourceType: 'Patient', id: made.id });
assert.equal(read.name[0].family, 'Kit');
read.active = true;
const updated = await client.update({ resourceType: 'Patient', id: made.id, body: read });
assert.equal(updated.meta.versionId, '2');
const old = await client.vread({ resourceType: 'Patient', id: made.id, version: '1' });
assert.equal(old.active, undefined);
const history = await client.history({ resourceType: 'Patient', id: made.id });
assert.equal(history.entry.length, 2);

const entry = [];
for (let n = 0; n < 25; n += 1) {
  entry.push({
    resource: {
      resourceType: 'Observation', status: 'final', code: { text: 'kit' }, subject: { reference: `Patient/${made.id}` },
      valueQuantity: { value: n, unit: 'mg' },
    },
    request: { method: 'POST', url: 'Observation' },
  });
}
const done = await client.transaction({ body: { resourceType: 'Bundle', type: 'transaction', entry } });
assert.equal(done.type, 'transaction-response');
assert.ok(done.entry.every((one) => one.response.status.startsWith('201')));

const seen = new Set();
let pages = 0;
let page = await client.search({ resourceType: 'Observation', searchParams: { patient: made.id, _count: '10' } });
while (page) {
  pages += 1;
  (page.entry ?? []).forEach((one) => seen.add(one.resource.id));
  page = page.link.some((link) => link.relation === 'next') ? await client.nextPage({ bundle: page }) : undefined;
}
assert.equal(seen.size, 25);
assert.equal(pages, 3);

const everything = await client.operation({ name: 'everything', resourceType: 'Patient', id: made.id, method: 'get' });
assert.equal(everything.entry.filter((one) => one.search.mode === 'match').length, 26);

await client.delete({ resourceType: 'Observation', id: [...seen][0] });
await assert.rejects(client.read({ resourceType: 'Observation', id: [...seen][0] }), (error) => error.response.status === 410);
await assert.rejects(
  client.create({ resourceType: 'Patient', body: { resourceType: 'Patient', colour: 'red' } }),
  (error) => error.response.status === 400,
);
console.log('fhir-kit-client: all as expected');
