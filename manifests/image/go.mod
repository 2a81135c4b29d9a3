// Packs the image. It is a module of its own because the library brings others that users of the plugins' own module must
// not download.
module github.com/istio-plugins/istio-plugins/manifests/image

go 1.26.0

require github.com/google/go-containerregistry v0.21.6

require (
	github.com/google/go-cmp v0.7.0 // indirect
	github.com/klauspost/compress v1.18.6 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
	golang.org/x/sync v0.20.0 // indirect
)
