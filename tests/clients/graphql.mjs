// The npm package `graphql` (the reference implementation), unchanged: the introspection query that IDEs and code
// generators send gives a schema that is valid, and queries that it finds valid are answered.
import assert from 'node:assert/strict';
import { assertValidSchema, buildClientSchema, getIntrospectionQuery, parse, validate } from 'graphql';

const ask = async (query, variables) => {
  const reply = await fetch(`${process.env.FHIR_BASE}/$graphql`, {
    method: 'POST',
    headers: { authorization: `Bearer ${process.env.FHIR_TOKEN}`, 'content-type': 'application/json', accept: 'application/json' },
    body: JSON.stringify({ query, variables }),
  });
  const text = await reply.text();
  assert.equal(reply.status, 200, text.slice(0, 2000));
  const body = JSON.parse(text);
  assert.equal(body.errors, undefined, text.slice(0, 2000));
  return { data: body.data, size: text.length };
};

const put = async (resource) => {
  const reply = await fetch(`${process.env.FHIR_BASE}/${resource.resourceType}/${resource.id}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${process.env.FHIR_TOKEN}`, 'content-type': 'application/fhir+json' },
    body: JSON.stringify(resource),
  });
  assert.equal(reply.status, 201, await reply.text());
};

const all = { descriptions: true, specifiedByUrl: true, directiveIsRepeatable: true, schemaDescription: true, inputValueDeprecation: true };
const started = performance.now();
const { data, size } = await ask(getIntrospectionQuery(all));
const took = Math.round(performance.now() - started);
const schema = buildClientSchema(data);
assertValidSchema(schema);
assert.equal(schema.getQueryType().name, 'Query');
const older = await ask(getIntrospectionQuery());
assertValidSchema(buildClientSchema(older.data));

await put({
  resourceType: 'Patient', id: 'g1', name: [{ use: 'official', family: 'Graph', given: ['One', 'Two'] }, { use: 'usual', family: 'G' }],
  birthDate: '1980-01-02', _birthDate: { extension: [{ url: 'http://x', valueString: 'y' }] },
});
await put({
  resourceType: 'Observation', id: 'g2', status: 'final', code: { text: 'graph' }, subject: { reference: 'Patient/g1' },
  valueQuantity: { value: 5.4, unit: 'mg' },
});
const valid = async (query, variables) => {
  const faults = validate(schema, parse(query));
  assert.deepEqual(faults.map(String), [], query);
  return (await ask(query, variables)).data;
};
const read = await valid(
  `query One($id: ID!, $status: [token]) {
    Patient(id: $id) {
      __typename id birthDate _birthDate { extension { url valueString } }
      name(use: official, _count: 1) { family given @first }
      ObservationList(_reference: patient, status: $status, _sort: "date") {
        valueQuantity { value unit }
        subject { resource(optional: true) { __typename ... on Patient { birthDate } } }
      }
    }
    ObservationConnection(code: "graph", _count: 1) { count first last previous edges { mode resource { id } } }
  }`.replace('code: "graph"', 'status: final'),
  { id: 'g1', status: ['final'] },
);
assert.deepEqual(read.Patient.name, [{ family: 'Graph', given: 'One' }]);
assert.equal(read.Patient.__typename, 'Patient');
assert.deepEqual(read.Patient.ObservationList[0].subject.resource, { __typename: 'Patient', birthDate: '1980-01-02' });
assert.equal(read.ObservationConnection.count, 1);
assert.notDeepEqual(validate(schema, parse('{ Patient(id: "x") { colour } }')), []);
assert.notDeepEqual(validate(schema, parse('{ PatientList(colour: "x") { id } }')), []);
const types = data.__schema.types;
const count = (of) => types.reduce((sum, type) => sum + (type.fields ?? []).reduce((n, field) => n + of(field), 0), 0);
console.log(`graphql: all as expected; ${types.length} types, ${count(() => 1)} fields, ${count((field) => field.args.length)} arguments, ${size} bytes in ${took} ms`);
