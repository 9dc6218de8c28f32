"""The PyPI client `fhirpy`, unchanged: create, read, update, search with pages, transaction, delete, errors."""

import os
import sys

sys.path.insert(0, os.environ["CLIENT_FOLDER"])
from fhirpy import SyncFHIRClient  # noqa: E402
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound  # noqa: E402

# Its count() sends a parameter of another server's own; lenient handling passes over it.
client = SyncFHIRClient(
    os.environ["FHIR_BASE"],
    authorization="Bearer " + os.environ["FHIR_TOKEN"],
    extra_headers={"Prefer": "handling=lenient"},
)

patient = client.resource("Patient", name=[{"family": "Pyramid", "given": ["One"]}], birthDate="1980-01-02")
patient.save()
assert patient.id
again = client.reference("Patient", patient.id).to_resource()
assert again["name"][0]["family"] == "Pyramid"
again["active"] = True
again.save()
assert again["meta"]["versionId"] == "2", again["meta"]

entry = [
    {
        "resource": {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "py"},
            "subject": {"reference": f"Patient/{patient.id}"},
            "valueQuantity": {"value": n},
        },
        "request": {"method": "POST", "url": "Observation"},
    }
    for n in range(25)
]
done = client.execute("", method="post", data={"resourceType": "Bundle", "type": "transaction", "entry": entry})
assert done["type"] == "transaction-response"

observations = client.resources("Observation").search(patient=patient.id).limit(10)
assert len(observations.fetch()) == 10
everything = observations.fetch_all()
assert len({one.id for one in everything}) == 25
assert client.resources("Observation").search(patient=patient.id).count() == 25
named = client.resources("Patient").search(family="Pyramid").first()
assert named.id == patient.id

everything[0].delete()
try:
    client.reference("Observation", everything[0].id).to_resource()
    raise SystemExit("a deleted resource was read")
except (ResourceNotFound, OperationOutcome):
    pass
try:
    client.resource("Patient", colour="red").save()
    raise SystemExit("an invalid resource was taken")
except OperationOutcome as error:
    assert "colour" in str(error), error
print("fhirpy: all as expected")
