// matrices_8: cooperative matrices of 8 x 8: halves times halves, summed in f32. This file comes first: directives have to.
enable f16;
enable wgpu_cooperative_matrix;
const EDGE: u32 = 8u;
alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Products = coop_mat8x8<f32, C>;
