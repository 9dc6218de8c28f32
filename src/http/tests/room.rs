//! What a waiting request takes. A future is as large as the most it might ever do, and is moved where it is made: what
//! is seldom done is boxed, or every read pays for it.

use crate::http::dispatch::Server;
use crate::http::fhir;
use crate::interaction::perform;

fn of_two<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
    size_of::<F>()
}

fn of_four<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

fn of_five<A, B, C, D, E, F: Future>(_: impl FnOnce(A, B, C, D, E) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_request_takes_few_kilobytes_while_it_waits() {
    let (whole, of_fhir, interaction) = (of_two(Server::serve), of_five(fhir::serve), of_four(perform));
    assert!(whole <= 1536, "any request: {whole} bytes");
    assert!(of_fhir <= 5120, "of FHIR: {of_fhir} bytes");
    assert!(interaction <= 3584, "an interaction: {interaction} bytes");
}
