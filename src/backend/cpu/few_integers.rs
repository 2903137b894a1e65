//! Inner products of few fixed-point queries with 8-bit items as they lie in memory.
//!
//! [`Int8Tile`](super::int8_tile::Int8Tile) pays when many queries share it. For few of them each item is read, multiplied and summed
//! on its own, which is in any order the same: sums are integers. The scores are those of the tile to the bit.

use std::ops::Range;

use pulp::x86::V3;
use pulp::{Arch, Simd, WithSimd, cast};

use super::fixed_rows::{BLOCK, FixedRows};
use super::int8_tile::{OCTET, PART, padded};
use super::prefetch::ask_for;
use super::tile::{ROWS, TILE};
use crate::tables::{Table, Values};

/// Bytes of a cache line.
const LINE: usize = 64;

/// The scores (B, TILE) of the 1 to TILE items `items`, by the only vector of `groups`, if the queries are at most [`ROWS`] and if the
/// machine and the table allow it; says whether they were computed. Lanes beyond the last item repeat it.
pub fn few_integers(
    queries: &FixedRows,
    table: &Table,
    groups: Range<usize>,
    items: Range<usize>,
    scores: &mut [f32],
) -> bool {
    let few = (1..=ROWS).contains(&queries.len()) && groups.len() == 1 && table.group_width() <= 2 * PART;
    let simd = match Arch::new() {
        Arch::V3(simd) if few => simd,
        Arch::V4(simd) if few => *simd,
        _ => return false,
    };
    let Values::I8(values) = table.values() else { return false };
    let values = values.as_slice();
    Simd::vectorize(simd, FewIntegers { simd, queries, table, values, group: groups.start, items, scores });
    true
}

struct FewIntegers<'a> {
    simd: V3,
    queries: &'a FixedRows,
    table: &'a Table,
    values: &'a [i8],
    group: usize,
    items: Range<usize>,
    scores: &'a mut [f32],
}

impl WithSimd for FewIntegers<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        match self.queries.len() {
            1 => self.score::<1>(),
            2 => self.score::<2>(),
            _ => self.score::<ROWS>(),
        }
    }
}

impl FewIntegers<'_> {
    /// The scores of at most R queries.
    #[inline(always)]
    fn score<const R: usize>(self) {
        let FewIntegers { simd, queries, table, values, group, items, scores } = self;
        let (avx, avx2, width) = (simd.avx, simd.avx2, table.group_width());
        let (whole, n, all_scales) = (width / BLOCK, queries.len(), table.scales());
        // Two tiles on: memory takes longer than one of them.
        let ahead = 2 * TILE * table.width();
        let (mut rows, mut last) = ([&[][..]; R], [[0; BLOCK]; R]);
        for r in 0..R {
            let blocks = queries.row(r.min(n - 1)).0.as_chunks::<BLOCK>().0;
            rows[r] = &blocks[..whole];
            last[r] = blocks.get(whole).copied().unwrap_or_default();
        }
        for octet in (0..items.len()).step_by(OCTET) {
            let mut sums = [[avx._mm256_setzero_si256(); OCTET]; R];
            let mut scales = [0.0; OCTET];
            for i in 0..OCTET {
                let vector = (items.start + octet + i).min(items.end - 1) * table.groups() + group;
                scales[i] = all_scales[vector];
                let row = &values[vector * width..][..width];
                for line in row.chunks(LINE) {
                    ask_for(line.as_ptr() as usize + ahead);
                }
                let (blocks, rest) = row.as_chunks::<BLOCK>();
                let mut total = [avx._mm256_setzero_si256(); R];
                for (index, block) in blocks.iter().enumerate() {
                    let columns = avx2._mm256_cvtepi8_epi16(cast(*block));
                    for r in 0..R {
                        let products = avx2._mm256_madd_epi16(columns, cast(rows[r][index]));
                        total[r] = avx2._mm256_add_epi32(total[r], products);
                    }
                }
                if !rest.is_empty() {
                    let columns = avx2._mm256_cvtepi8_epi16(cast(padded(rest)));
                    for r in 0..R {
                        total[r] = avx2._mm256_add_epi32(total[r], avx2._mm256_madd_epi16(columns, cast(last[r])));
                    }
                }
                for r in 0..R {
                    sums[r][i] = total[r];
                }
            }
            for r in 0..n.min(R) {
                let s = sums[r];
                // Neighbours are added until each item has a sum in either half of a register.
                let pairs = [
                    avx2._mm256_hadd_epi32(s[0], s[1]),
                    avx2._mm256_hadd_epi32(s[2], s[3]),
                    avx2._mm256_hadd_epi32(s[4], s[5]),
                    avx2._mm256_hadd_epi32(s[6], s[7]),
                ];
                let quads = [avx2._mm256_hadd_epi32(pairs[0], pairs[1]), avx2._mm256_hadd_epi32(pairs[2], pairs[3])];
                let totals: [i32; OCTET] = cast(avx2._mm256_add_epi32(
                    avx2._mm256_permute2x128_si256::<0x20>(quads[0], quads[1]),
                    avx2._mm256_permute2x128_si256::<0x31>(quads[0], quads[1]),
                ));
                let scale = queries.row(r).1;
                for (lane, score) in scores[r * TILE + octet..][..OCTET].iter_mut().enumerate() {
                    // A sum of one, as where an item has several vectors: no score is -0.
                    *score = 0.0 + totals[lane] as f32 * scales[lane] * scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::int8_tile::Int8Tile;
    use crate::tables::Dtype;

    fn waves(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * scale).cos()).collect()
    }

    #[test]
    fn scores_are_those_of_a_tile_to_the_bit() {
        let can = !matches!(Arch::new(), Arch::Scalar);
        for (groups, width) in [(1, 1), (3, 5), (2, 16), (1, 64), (2, 100), (1, 512)] {
            let mut table = Table::new(groups, width, Dtype::I8);
            table.append(&waves(70 * groups * width, 0.7));
            for (group, items) in [(0, 3..35), (groups - 1, 64..70), (0, 69..70)] {
                for n in 1..=ROWS {
                    let queries = FixedRows::from_rows(&waves(n * width, 0.3), width);
                    let (mut tile, mut expected) = (Int8Tile::default(), vec![0.0; n * TILE]);
                    tile.load(&table, group..group + 1, items.len(), |lane| items.start + lane);
                    tile.score(&queries, 1, None, &mut expected);
                    let mut found = vec![f32::NAN; n * TILE];
                    assert_eq!(few_integers(&queries, &table, group..group + 1, items.clone(), &mut found), can);
                    for (found, expected) in found.chunks_exact(TILE).zip(expected.chunks_exact(TILE)).filter(|_| can) {
                        let bits =
                            |scores: &[f32]| scores[..items.len()].iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(found), bits(expected), "{groups} x {width}, {items:?}, {n} queries");
                        assert!(expected[0] != 0.0);
                    }
                }
            }
        }
    }

    #[test]
    fn other_work_is_left_to_others() {
        let check = |groups: usize, width: usize, dtype: Dtype, n: usize| {
            let mut table = Table::new(groups, width, dtype);
            table.append(&waves(8 * groups * width, 0.7));
            let queries = FixedRows::from_rows(&waves(n * width, 0.3), width);
            few_integers(&queries, &table, 0..groups, 0..8, &mut vec![0.0; n * TILE])
        };
        assert!(!check(1, 8, Dtype::F32, 1));
        assert!(!check(1, 8, Dtype::I8, ROWS + 1));
        assert!(!check(2, 8, Dtype::I8, 1));
        assert!(!check(1, 513, Dtype::I8, 1), "sums of so many products leave 32 bits");
    }
}
