//! Operations (operations.html): `$name` at the base, on a type, on one resource. The table says what there is; an
//! operation authorizes every type it touches and ends on record like any interaction.

mod definition;
mod everything;
mod input;
mod table;

use input::Input;
use table::Run;
pub use table::{Is, OPERATIONS, Operation, Param, find};

pub(super) use definition::built_in;

use super::{Answer, Pairs, Scene, graphql};
use crate::error::{Error, Result};
use crate::fhir::TypeId;
use crate::fhir::json::{self, Node};
use crate::search::{Query, QueryOptions};

/// One call, read.
struct Call {
    operation: &'static Operation,
    kind: Option<TypeId>,
    id: Option<String>,
    input: Input,
}

pub(super) async fn perform(
    scene: Scene<'_>,
    operation: &'static Operation,
    (kind, id): (Option<TypeId>, Option<String>),
    query: Pairs,
    body: Option<Node>,
) -> Result<Answer> {
    let input = input::read(operation, query, body, scene.facts.prefer.lenient)?;
    let call = Call { operation, kind, id, input };
    match operation.run {
        Run::Everything => everything::everything(scene, &call).await,
        Run::GraphQl => {
            let text = |name: &str| call.input.text(name).map(str::to_owned);
            let variables = text("variables").filter(|text| !text.is_empty());
            let asked = graphql::Request {
                query: text("query").unwrap_or_default(),
                operation: text("operationName"),
                variables: variables.map_or(Ok(Node::Null), |text| json::parse(text.as_bytes()))?,
            };
            graphql::perform(scene, call.kind.zip(call.id), &asked).await
        }
    }
}

impl Call {
    fn kind(&self) -> Result<TypeId> {
        self.kind.ok_or_else(|| Error::internal("an operation without its type"))
    }
}

/// How a search inside an operation is read.
fn options(scene: Scene<'_>) -> QueryOptions {
    let config = &scene.app.config;
    QueryOptions {
        lenient: false,
        base: config.base_url.clone(),
        count_default: config.page_size_max.size(),
        count_max: config.page_size_max.size(),
        now: scene.app.world.now(),
    }
}

/// A search for everything of a type, to be narrowed.
fn every(scene: Scene<'_>, kind: TypeId) -> Result<Query> {
    Query::parse(kind, &[], &options(scene))
}
