//! The programs whose checkpoints are read.

use crate::error::Parameter;
use crate::names::names;

/// A program whose checkpoints are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// This program, or the reference: no other.
    Rails,
    /// RecBole 1.2: SASRec, GRU4Rec, BERT4Rec.
    Recbole,
    /// RecTools 0.19: SASRec, BERT4Rec.
    Rectools,
    /// pmixer/SASRec.pytorch.
    Pmixer,
    /// asash/gSASRec-pytorch.
    Gsasrec,
    /// hidasib/GRU4Rec_PyTorch_Official.
    Gru4rec,
    /// jaywonchung/BERT4Rec-VAE-Pytorch.
    Bert4recVae,
    /// antklen/sasrec-bert4rec-recsys23: BERT4Rec on Hugging Face's BertModel, SASRec, and GRU4Rec on torch's `nn.GRU`.
    Hf,
}

names!(Source, Parameter::Named("from"), {
    Rails: "rails",
    Recbole: "recbole",
    Rectools: "rectools",
    Pmixer: "pmixer",
    Gsasrec: "gsasrec",
    Gru4rec: "gru4rec",
    Bert4recVae: "bert4rec-vae",
    Hf: "hf",
});
