{
  description = "noise-to-video: Python, Poetry and what binary wheels need";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    {
      devShells =
        nixpkgs.lib.genAttrs
          [
            "x86_64-linux"
            "aarch64-linux"
            "aarch64-darwin"
          ]
          (
            system:
            let
              pkgs = nixpkgs.legacyPackages.${system};
              inherit (pkgs) lib stdenv;
              # libstdc++, libgcc_s and zlib: all that the manylinux wheels in poetry.lock do not bring along. And
              # FriBiDi, without which Pillow does not join the characters that most emoji are written in.
              wheelLibs = [
                stdenv.cc.cc.lib
                pkgs.zlib
                pkgs.fribidi
              ];
              # Beside the machine's own fonts, which it names too: the font of prepare-emoji.
              fonts = pkgs.makeFontsConf { fontDirectories = [ pkgs.noto-fonts-color-emoji ]; };
            in
            {
              default = pkgs.mkShell {
                packages = [
                  pkgs.python311
                  pkgs.poetry
                  pkgs.gnumake
                  pkgs.fontconfig
                ];

                shellHook =
                  lib.optionalString stdenv.hostPlatform.isLinux ''
                    export LD_LIBRARY_PATH="${lib.makeLibraryPath wheelLibs}''${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

                    # libcuda.so.1 belongs to the machine's own NVIDIA driver. NixOS and WSL keep the driver in a
                    # folder of its own; elsewhere it lies beside the system's libc, which must not be loaded, so
                    # its files alone are linked into a folder.
                    nvidia=
                    for dir in /run/opengl-driver/lib /usr/lib/wsl/lib; do
                      if [ -z "$nvidia" ] && [ -e "$dir/libcuda.so.1" ]; then nvidia=$dir; fi
                    done
                    for dir in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64; do
                      if [ -z "$nvidia" ] && [ -e "$dir/libcuda.so.1" ]; then
                        nvidia=''${XDG_CACHE_HOME:-$HOME/.cache}/nix-nvidia-driver
                        mkdir -p "$nvidia"
                        for file in "$dir"/libcuda.so* "$dir"/libnvidia-*.so*; do ln -sf "$file" "$nvidia"; done
                      fi
                    done
                    if [ -n "$nvidia" ]; then
                      export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$nvidia" TRITON_LIBCUDA_PATH="$nvidia"
                    fi
                  ''
                  + ''
                    export FONTCONFIG_FILE="${fonts}"
                    export SETUP=poetry
                    if [ -f poetry.lock ]; then make --silent setup; fi
                  '';
              };
            }
          );
    };
}
