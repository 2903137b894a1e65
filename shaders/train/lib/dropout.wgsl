// dropout: what dropout multiplies an element by, from Threefry-2x32-20. // twin src/random.rs
struct Dropout {
    key: vec2u,
    threshold: u32,   // sixteen bits below this set an element to zero
    scale: f32,
}

fn rotated(x: u32, by: u32) -> u32 {
    return (x << by) | (x >> (32u - by));
}

fn mixed(x: vec2u, a: u32, b: u32, c: u32, d: u32) -> vec2u {
    var v = x;
    v.x += v.y; v.y = rotated(v.y, a) ^ v.x;
    v.x += v.y; v.y = rotated(v.y, b) ^ v.x;
    v.x += v.y; v.y = rotated(v.y, c) ^ v.x;
    v.x += v.y; v.y = rotated(v.y, d) ^ v.x;
    return v;
}

fn threefry(key: vec2u, counter: vec2u) -> vec2u {
    let third = 0x1bd11bdau ^ key.x ^ key.y;
    var v = counter + key;
    v = mixed(v, 13u, 15u, 26u, 6u) + vec2u(key.y, third + 1u);
    v = mixed(v, 17u, 29u, 16u, 24u) + vec2u(third, key.x + 2u);
    v = mixed(v, 13u, 15u, 26u, 6u) + vec2u(key.x, key.y + 3u);
    v = mixed(v, 17u, 29u, 16u, 24u) + vec2u(key.y, third + 4u);
    return mixed(v, 13u, 15u, 26u, 6u) + vec2u(third, key.x + 5u);
}

// 0 or the scale. Of 64 elements in a row, 16 have the lower halves of the first words of 16 blocks, 16 the upper, 32 those of the second.
fn kept(dropout: Dropout, element: u32) -> f32 {
    let place = element % 64u;
    let words = threefry(dropout.key, vec2u(element / 64u * 16u + place % 16u, 0u));
    let word = select(words.y, words.x, place < 32u);
    let bits = select(word >> 16u, word & 0xffffu, place / 16u % 2u == 0u);
    return select(0.0, dropout.scale, bits >= dropout.threshold);
}
