// matrices_16: cooperative matrices of 16 x 16: halves times halves, summed in f32. This file comes first: directives have to.
enable f16;
enable wgpu_cooperative_matrix;
const EDGE: u32 = 16u;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Products = coop_mat16x16<f32, C>;
