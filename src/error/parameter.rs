//! What a wrong argument was meant for.

use std::fmt;

macro_rules! parameters {
    ($($variant:ident: $words:literal, $doc:literal;)*) => {
        /// What an [`Error::Argument`](super::Error::Argument) is about; displayed in words.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Parameter {
            $(#[doc = $doc] $variant,)*
            /// A hyper-parameter of a model, by its key.
            HyperParameter(&'static str),
            /// One that a program or a binding names: an option of the command line, an argument of a C function.
            Named(&'static str),
        }

        impl fmt::Display for Parameter {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(match self {
                    $(Parameter::$variant => $words,)*
                    Parameter::HyperParameter(name) | Parameter::Named(name) => name,
                })
            }
        }
    };
}

parameters! {
    Algorithm: "algorithm", "Which algorithm searches.";
    Attributes: "attributes", "Attributes of items: columns, and a value for each item.";
    Candidates: "candidates", "Positions of items to score.";
    Columns: "columns", "Which columns of the tables a first stage multiplies.";
    ComponentGroup: "component group", "Which component of the items.";
    ComponentVectors: "component vectors", "What a first stage multiplies with components.";
    Condition: "condition", "What attributes of an item must be for it to be found.";
    Dataset: "dataset", "Sequences of events.";
    DeniedItems: "denied items", "A bit for each item.";
    DeviceKind: "device kind", "What kind of hardware a device is.";
    Dtype: "dtype", "Number format of tables.";
    Encoder: "encoder", "What turns histories into queries.";
    Exclusions: "exclusions", "Items that a query must not find.";
    FusedScores: "fused scores", "(B): scores of items that a similarity is added to.";
    FusionWeight: "fusion weight", "What a similarity is multiplied with in a sum of scores.";
    FileName: "name of a file", "Name of a file of an index.";
    File: "file", "A file of an index.";
    Form: "form", "How components are kept.";
    Format: "format", "Format of a data set to read.";
    History: "history", "Events of a user.";
    HyperParameters: "hyper-parameters", "Changes of a configuration.";
    Index: "index", "The index, or what it is made of.";
    InvertedLists: "inverted lists", "Inverted lists of an index.";
    ItemEmbeddings: "item embeddings", "(N, D): raw embeddings of items.";
    ItemIds: "item ids", "(N): ids of items.";
    K: "k", "Number of items to find.";
    LearningQueries: "queries to learn from", "(B, D): queries like those that will be asked.";
    Limit: "limit", "Most users to read.";
    ListVectors: "list vectors", "What is multiplied with centroids of inverted lists.";
    Metadata: "metadata", "Metadata of a file.";
    Metric: "metric", "A number about the quality of results.";
    Model: "model", "A model.";
    OriginalIds: "original ids", "(N): the ids that users gave to items.";
    Output: "output", "File to write.";
    Pairs: "pairs", "Queries and items that belong together.";
    Preset: "preset", "A configuration that comes with the crate.";
    ProbedLists: "probed lists", "Inverted lists that a query looks into.";
    Protocol: "protocol", "Protocol of an evaluation.";
    Qrels: "relevance judgments", "Grades of documents for queries.";
    QueryEmbeddings: "query embeddings", "(B, D): raw embeddings of queries.";
    RelevanceLevel: "relevance level", "Least grade of a relevant document.";
    RunFolder: "run folder", "Folder of a training run.";
    ScanTier: "RAILS_SCAN_TIER", "Which kernels a GPU may scan with.";
    ShaderChecks: "RAILS_SHADER_CHECKS", "The checks that kernels of a GPU are compiled with.";
    Scorer: "scorer", "Which similarity a scan computes.";
    Searcher: "searcher", "What a searcher is built of.";
    Segment: "segment", "A part of an index.";
    Tensor: "tensor", "A tensor.";
    Tensors: "tensors", "Tensors to save together.";
    Thresholds: "thresholds", "(V): one threshold per vector.";
    TokenEmbeddings: "token embeddings", "(T, D): several vectors per query or item.";
    TokenLengths: "token lengths", "(n): how many token embeddings each query or item has.";
    TokenPooling: "token pooling", "What makes component embeddings of token embeddings.";
    TrecName: "name", "Name of a query, a document or a run.";
    TrecRun: "run", "Results of a search, for an evaluation.";
    UserIds: "user ids", "(B): one user per query.";
}

impl From<&'static str> for Parameter {
    /// [`Parameter::Named`].
    fn from(name: &'static str) -> Parameter {
        Parameter::Named(name)
    }
}
