//! Tables from the search page of R4.
