//! GRU4Rec of hidasib/GRU4Rec_PyTorch_Official, with constrained, separate or no ("GE") embeddings.
//!
//! Layers of different widths, and embeddings of another width than the last layer, are filled up with zeros: a unit without weights has
//! the state 0 always.

use super::matrix::{extended, made, rows_of, zeros};
use super::model_config;
use super::reader::Reader;
use crate::Result;
use crate::config::{EncoderConfig, Gru4recConfig, ModelConfig, OutputConfig};
use crate::tensor::Tensor;

/// A layer of torch's `nn.GRUCell`: gates are reset, update, candidate.
struct Cell {
    /// (3 hidden, n_in)
    input: Tensor,
    /// (3 hidden, hidden)
    recurrent: Tensor,
    /// (3 hidden) each
    biases: [Tensor; 2],
}

impl Cell {
    fn hidden(&self) -> usize {
        self.recurrent.width()
    }
}

pub(super) fn load(reader: &mut Reader) -> Result<ModelConfig> {
    let output = reader.matrix("Wy.weight")?;
    let (n_items, last) = (output.rows(), output.width());
    let bias = reader.take("By.weight", &[n_items, 1])?;
    let mut cells = Vec::new();
    let separate = reader.has("E.weight") || reader.has("GE.Wx0.weight");
    let items = if reader.has("E.weight") {
        reader.matrix("E.weight")?
    } else if reader.has("GE.Wx0.weight") {
        let table = reader.matrix("GE.Wx0.weight")?;
        if table.width() % 3 != 0 {
            return Err(
                reader.unsupported("`GE.Wx0.weight` has no three columns for each unit", "save a trained model")
            );
        }
        cells.push(of_embedding(reader, table.width() / 3)?);
        table
    } else {
        output.clone()
    };
    let mut n_in = cells.last().map_or(items.width(), Cell::hidden);
    let mut cell = 0;
    while reader.has(&format!("G.{cell}.weight_hh")) {
        let hidden = reader.matrix(&format!("G.{cell}.weight_hh"))?.width();
        let mut take = |name: &str, shape: &[usize]| reader.take(&format!("G.{cell}.{name}"), shape);
        cells.push(Cell {
            input: take("weight_ih", &[3 * hidden, n_in])?,
            recurrent: take("weight_hh", &[3 * hidden, hidden])?,
            biases: [take("bias_ih", &[3 * hidden])?, take("bias_hh", &[3 * hidden])?],
        });
        n_in = hidden;
        cell += 1;
    }
    let ends_well = cells.last().is_some_and(|cell| cell.hidden() == last) && items.rows() == n_items;
    if !ends_well {
        let what =
            "its last layer and the embeddings of the output `Wy.weight` differ in width, or tables of items in rows";
        return Err(reader.unsupported(what, "save the weights of a trained model"));
    }

    // Items are counted from 0 there; here row 0 is nobody's.
    let dim = items.width().max(last);
    let table =
        |items: &Tensor| extended(&rows_of(items, [None].into_iter().chain((0..n_items).map(Some))), n_items + 1, dim);
    reader.put("item_embedding.weight", table(&items));
    if separate {
        reader.put("output.weight", table(&output));
    }
    reader.put("output.bias", Tensor::trusted(vec![n_items + 1], [&[0.0], bias.data()].concat()));
    let hidden = cells.iter().map(Cell::hidden).max().unwrap_or_default();
    // Two matrices of each layer, of three gates each, and the dense layer.
    reader.check_size((6 * cells.len() + 1) * hidden, dim.max(hidden))?;
    for (layer, cell) in cells.iter().enumerate() {
        let n_in = if layer == 0 { dim } else { hidden };
        let [bias_ih, bias_hh] = &cell.biases;
        for (name, matrix, columns) in [("weight_ih", &cell.input, n_in), ("weight_hh", &cell.recurrent, hidden)] {
            reader.put(format!("gru.{name}_l{layer}"), widened(matrix, cell.hidden(), hidden, columns));
        }
        for (name, bias) in [("bias_ih", bias_ih), ("bias_hh", bias_hh)] {
            let wide = widened(bias, cell.hidden(), hidden, 1);
            reader.put(format!("gru.{name}_l{layer}"), Tensor::trusted(vec![3 * hidden], wide.data().to_vec()));
        }
    }
    let dense = dim != hidden;
    if dense {
        reader.put("dense.weight", made(dim, hidden, |row, column| f32::from(u8::from(row == column && row < last))));
        reader.put("dense.bias", zeros(dim));
    }
    let length = reader.max_sequence_length(None)?;
    let encoder =
        EncoderConfig::Gru4rec(Gru4recConfig { num_layers: cells.len(), hidden_dim: hidden, bias: true, dense });
    Ok(model_config(dim, length, encoder, OutputConfig { separate, bias: true }))
}

/// The layer whose inputs are looked up: an item's embedding holds what it adds to the candidate, the reset and the update gate, and the
/// update gate is that of the new state, not of the old one.
fn of_embedding(reader: &mut Reader, hidden: usize) -> Result<Cell> {
    let recurrent = reader.take("GE.Wh0", &[hidden, 3 * hidden])?;
    let bias = reader.take("GE.Bh0", &[3 * hidden])?;
    // Where row `row` of this program's gates is there, and its sign.
    let place = |row: usize| match row / hidden {
        0 => (hidden + row, 1.0),
        1 => (hidden + row, -1.0),
        _ => (row - 2 * hidden, 1.0),
    };
    let gates = |columns: usize, value: &dyn Fn(usize, usize) -> f32| {
        made(3 * hidden, columns, |row, column| {
            let (theirs, sign) = place(row);
            sign * value(theirs, column)
        })
    };
    let bias_ih = gates(1, &|row, _| bias.data()[row]).data().to_vec();
    Ok(Cell {
        input: gates(3 * hidden, &|row, column| f32::from(u8::from(row == column))),
        recurrent: gates(hidden, &|row, column| recurrent.row(column)[row]),
        biases: [Tensor::trusted(vec![3 * hidden], bias_ih), zeros(3 * hidden)],
    })
}

/// (3 wide, columns) of a (3 hidden, ..) matrix: each gate with zeros behind its rows and columns.
fn widened(matrix: &Tensor, hidden: usize, wide: usize, columns: usize) -> Tensor {
    let width = matrix.width();
    made(3 * wide, columns, |row, column| match row % wide < hidden && column < width {
        true => matrix.data()[(row / wide * hidden + row % wide) * width + column],
        false => 0.0,
    })
}
