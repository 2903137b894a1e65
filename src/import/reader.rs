//! Tensors and settings of another program's checkpoint on their way into the layout of this program.

use std::path::Path;

use super::matrix::stacked;
use super::options::ImportOptions;
use crate::checkpoint::{Checkpoint, PickleValue, Weights};
use crate::config::FfnActivation;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What Lightning's checkpoints put before the names of the module `model`.
pub(super) const LIGHTNING: &str = "model.";

/// Most numbers that the file does not hold.
const LARGEST: usize = 1 << 28;

/// Takes tensors by their names in the file and gives them those of this program.
pub(super) struct Reader<'a> {
    weights: Weights<'a>,
    checkpoint: &'a Checkpoint,
    /// Before every name in the file.
    prefix: &'static str,
    /// What the file holds beside tensors.
    root: Option<PickleValue<'a>>,
    pub options: &'a ImportOptions,
    named: Vec<(String, Tensor)>,
    /// Names of the items 1, 2, ...
    pub item_names: Option<Vec<String>>,
}

impl<'a> Reader<'a> {
    pub fn new(checkpoint: &'a Checkpoint, root: Option<PickleValue<'a>>, options: &'a ImportOptions) -> Reader<'a> {
        let weights = Weights::new(checkpoint);
        Reader { weights, checkpoint, prefix: "", root, options, named: Vec::new(), item_names: None }
    }

    /// Every name in the file begins with this, which is left out from now on.
    pub fn set_prefix(&mut self, prefix: &'static str) {
        self.prefix = prefix;
    }

    /// Whether some name in the file begins with this.
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.checkpoint.names().any(|name| name.starts_with(prefix))
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub fn has(&self, name: &str) -> bool {
        self.weights.has(&self.full(name))
    }

    /// Of blocks that each have the tensor `name(block)`, how many there are.
    pub fn count(&self, name: impl Fn(usize) -> String) -> Result<usize> {
        match (0..).find(|&block| !self.has(&name(block))) {
            Some(0) | None => Err(self.missing(&name(0))),
            Some(n) => Ok(n),
        }
    }

    fn missing(&self, name: &str) -> Error {
        let path = self.checkpoint.path().to_path_buf();
        let (expected, found) = ("a tensor of this name".to_string(), "none".to_string());
        Error::Tensor { path, name: self.full(name), expected, found }
    }

    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.take(&self.full(name), shape)
    }

    /// A table of any number of rows, but at least one, of this width.
    pub fn table(&mut self, name: &str, width: usize) -> Result<Tensor> {
        let full = self.full(name);
        let rows = self.weights.rows(&full)?.max(1);
        self.weights.take(&full, &[rows, width])
    }

    /// A matrix of any number of rows and columns, with at least one each.
    pub fn matrix(&mut self, name: &str) -> Result<Tensor> {
        let full = self.full(name);
        let shape = self.weights.shape(&full).ok_or_else(|| self.missing(name))?;
        match shape {
            &[rows, columns] if rows > 0 && columns > 0 => self.weights.take(&full, &[rows, columns]),
            _ => Err(Error::Tensor {
                path: self.checkpoint.path().to_path_buf(),
                name: full,
                expected: "a matrix".to_string(),
                found: format!("shape {shape:?}"),
            }),
        }
    }

    /// Passes over a tensor, of whatever shape, that no result depends on.
    pub fn ignore(&mut self, name: &str) -> Result<()> {
        let full = self.full(name);
        match self.weights.shape(&full) {
            Some(shape) => self.weights.take(&full, shape).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Gives a tensor its name.
    pub fn put(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.named.push((name.into(), tensor));
    }

    /// Weight (n_out, n_in) and bias (n_out) of a linear layer.
    pub fn linear(&mut self, theirs: &str, ours: &str, n_in: usize, n_out: usize) -> Result<()> {
        let weight = self.take(&format!("{theirs}.weight"), &[n_out, n_in])?;
        let bias = self.take(&format!("{theirs}.bias"), &[n_out])?;
        self.put(format!("{ours}.weight"), weight);
        self.put(format!("{ours}.bias"), bias);
        Ok(())
    }

    /// The same of a convolution of kernel size 1, whose weight is (n_out, n_in, 1).
    pub fn convolution(&mut self, theirs: &str, ours: &str, n_in: usize, n_out: usize) -> Result<()> {
        let weight = self.take(&format!("{theirs}.weight"), &[n_out, n_in, 1])?;
        let bias = self.take(&format!("{theirs}.bias"), &[n_out])?;
        self.put(format!("{ours}.weight"), Tensor::trusted(vec![n_out, n_in], weight.data().to_vec()));
        self.put(format!("{ours}.bias"), bias);
        Ok(())
    }

    /// Both layers of a block's feed-forward part, and its hidden width.
    pub fn feed_forward(&mut self, theirs: [String; 2], ours: &str, dim: usize) -> Result<usize> {
        let [first, second] = &theirs;
        let hidden = self.matrix(&format!("{first}.weight"))?.rows();
        self.linear(first, &format!("{ours}.ffn.0"), dim, hidden)?;
        self.linear(second, &format!("{ours}.ffn.1"), hidden, dim)?;
        Ok(hidden)
    }

    /// Layers of queries, keys and values of width `dim` as one.
    pub fn attention_inputs(&mut self, theirs: [String; 3], ours: &str, dim: usize) -> Result<()> {
        let mut take = |what: &str, shape: &[usize]| {
            let parts: Result<Vec<Tensor>> =
                theirs.iter().map(|name| self.take(&format!("{name}.{what}"), shape)).collect();
            Ok::<Tensor, Error>(stacked(&parts?))
        };
        let (weight, bias) = (take("weight", &[dim, dim])?, take("bias", &[dim])?);
        self.put(format!("{ours}.in_proj_weight"), weight);
        self.put(format!("{ours}.in_proj_bias"), bias);
        Ok(())
    }

    /// All of torch's `nn.MultiheadAttention` of width `dim`.
    pub fn multi_head_attention(&mut self, theirs: &str, ours: &str, dim: usize) -> Result<()> {
        let weight = self.take(&format!("{theirs}.in_proj_weight"), &[3 * dim, dim])?;
        let bias = self.take(&format!("{theirs}.in_proj_bias"), &[3 * dim])?;
        self.put(format!("{ours}.in_proj_weight"), weight);
        self.put(format!("{ours}.in_proj_bias"), bias);
        self.linear(&format!("{theirs}.out_proj"), &format!("{ours}.out_proj"), dim, dim)
    }

    /// Weight and bias of a layer norm, by their names in the file.
    pub fn norm_of(&mut self, [weight, bias]: [&str; 2], ours: &str, dim: usize) -> Result<()> {
        let (weight, bias) = (self.take(weight, &[dim])?, self.take(bias, &[dim])?);
        self.put(format!("{ours}.weight"), weight);
        self.put(format!("{ours}.bias"), bias);
        Ok(())
    }

    pub fn norm(&mut self, theirs: &str, ours: &str, dim: usize) -> Result<()> {
        self.norm_of([&format!("{theirs}.weight"), &format!("{theirs}.bias")], ours, dim)
    }

    /// What the file holds beside tensors under these keys, one within the other.
    pub fn setting(&self, path: &[&str]) -> Option<PickleValue<'a>> {
        path.iter().try_fold(self.root?, |value, key| value.get(key))
    }

    /// A number of attention heads: the option's, else the setting's.
    ///
    /// # Errors
    /// If there is neither.
    pub fn num_heads(&self, setting: Option<PickleValue>) -> Result<usize> {
        let expected =
            "the number of attention heads (--num-heads), which neither names nor shapes of the tensors tell";
        self.number(self.options.num_heads, setting, "num-heads", expected)
    }

    /// A longest history: the option's, else the setting's.
    ///
    /// # Errors
    /// If there is neither.
    pub fn max_sequence_length(&self, setting: Option<PickleValue>) -> Result<usize> {
        let expected = "the longest history that the model sees (--max-sequence-length), which the tensors do not tell";
        self.number(self.options.max_sequence_length, setting, "max-sequence-length", expected)
    }

    fn number(
        &self,
        option: Option<usize>,
        setting: Option<PickleValue>,
        name: &'static str,
        expected: &str,
    ) -> Result<usize> {
        let of_file = || setting.and_then(PickleValue::int).and_then(|number| usize::try_from(number).ok());
        let found = || format!("nothing, for {}", self.checkpoint.path().display());
        option.or_else(of_file).ok_or_else(|| Error::argument(name, expected, found()))
    }

    /// The longest history of a table with a row for each of its places, of which `reserved` are those of a mask token.
    ///
    /// # Errors
    /// If the option asks for more, or no place is left.
    pub fn places(&self, rows: usize, reserved: usize) -> Result<usize> {
        let places = rows.saturating_sub(reserved);
        let asked = self.options.max_sequence_length.unwrap_or(places);
        if (1..=places).contains(&asked) {
            return Ok(asked);
        }
        let expected = format!("1 to {places}, as there are {rows} position embeddings");
        Err(Error::argument("max-sequence-length", expected, asked))
    }

    /// An activation: the option's, else the setting's by its name in the program, else `usual`.
    ///
    /// # Errors
    /// If the setting is none of `known`.
    pub fn activation(
        &self,
        setting: Option<PickleValue>,
        known: &[(&str, FfnActivation)],
        usual: FfnActivation,
    ) -> Result<FfnActivation> {
        let named = match (self.options.activation, setting.and_then(PickleValue::text)) {
            (Some(option), _) => return Ok(option),
            (None, None) => return Ok(usual),
            (None, Some(named)) => named,
        };
        known.iter().find(|(name, _)| *name == named).map(|(_, activation)| *activation).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            Error::argument("activation", format!("{} (of the file's own settings)", names.join(", ")), named)
        })
    }

    /// Fails if all matrices that are made here, as one of this shape, would have more numbers than a file should ask for.
    pub fn check_size(&self, rows: usize, columns: usize) -> Result<()> {
        match rows.checked_mul(columns) {
            Some(..=LARGEST) => Ok(()),
            _ => {
                let what =
                    format!("asks for {rows} x {columns} numbers that it does not hold, {LARGEST} at most are made");
                Err(self.unsupported(what, "save a trained model"))
            }
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.checkpoint.path()
    }

    /// A setting that this program does not compute.
    pub fn unsupported(&self, what: impl Into<String>, fix: &str) -> Error {
        Error::Checkpoint { path: self.checkpoint.path().to_path_buf(), what: what.into(), fix: fix.to_string() }
    }

    /// All that was given a name.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the tensors that nobody took.
    pub fn finish(self) -> Result<Vec<(String, Tensor)>> {
        self.weights.finish()?;
        Ok(self.named)
    }
}
