//! UCUM: canonical units for quantity search.
