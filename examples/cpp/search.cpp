// Load a model, index its items, and recommend to one user.
//
//     c++ -std=c++17 search.cpp -o search $(pkg-config --cflags --libs rails-wgpu)
//     ./search model.safetensors        (assets/demo.safetensors will do)
#include <iostream>
#include <rails_wgpu.hpp>

int main(int argc, char **argv) try {
    if (argc < 2) {
        std::cerr << "usage: " << argv[0] << " MODEL [DEVICE]\n";
        return 2;
    }
    for (const auto &device : rails_wgpu::devices()) std::cout << "device: " << device.name << '\n';

    // 1. A trained model, and its items on a device.
    const rails_wgpu::Model model(argv[1]);
    rails_wgpu::Searcher searcher(model, {}, argc > 2 ? argv[2] : "auto");
    std::cout << searcher.size() << " items on " << searcher.device() << '\n';

    // 2. A user's history, encoded.
    const std::vector<float> queries = searcher.encode({{7, {12, 31, 5}, {100, 160, 300}, 400}});

    // 3. The best items that the user has not seen.
    rails_wgpu::Options options;
    options.excluded = {{12, 31, 5}};
    const auto hits = searcher.search(queries, {7}, 5, options);
    for (const auto &hit : hits[0]) std::cout << hit.id << "  " << hit.score << '\n';

    // 4. Items come and go.
    searcher.remove({42});
    searcher.add({1000}, std::vector<float>(searcher.dim(), 0.5f));
    std::cout << searcher.size() << " items now\n";
} catch (const rails_wgpu::Error &error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
}
