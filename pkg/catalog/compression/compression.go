// Package compression is the built-in compression: it compresses responses. schema.yaml documents it.
//
// There is one of Envoy's compressors for each algorithm, and they agree among themselves which of them acts. Which of
// several that a client likes alike is theirs only as far as one goes before all others. Where there are more than two
// algorithms, Lua in front puts the client's list in order, of which Envoy takes the first.
package compression

import (
	_ "embed"
	"fmt"
	"net/http"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	brotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	zstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/istio-plugins/istio-plugins/pkg/catalog/builtin"
	"github.com/istio-plugins/istio-plugins/pkg/config"
	"github.com/istio-plugins/istio-plugins/pkg/part"
)

//go:embed schema.yaml
var schema []byte

//go:embed order.lua
var order string

// Builtin is compression.
var Builtin = &builtin.Builtin{
	Name:   "compression",
	Schema: builtin.MustSchema(schema),
	Build:  build,
}

// libraries of Envoy, by the name of the content coding that they make.
var libraries = map[string]proto.Message{"br": &brotliv3.Brotli{}, "gzip": &gzipv3.Gzip{}, "zstd": &zstdv3.Zstd{}}

type settings struct {
	Algorithms           []string `json:"algorithms"`
	MinLength            uint32   `json:"min_length"`
	ContentTypes         []string `json:"content_types"`
	DisableOnEtag        bool     `json:"disable_on_etag"`
	RemoveAcceptEncoding bool     `json:"remove_accept_encoding"`
}

func build(use builtin.Use, v config.Value) ([]part.Part, []builtin.Problem) {
	var s settings
	builtin.DecodeInto(v, &s)
	var problems []builtin.Problem
	for i, t := range s.ContentTypes {
		if strings.HasPrefix(strings.ToLower(t), "application/grpc") {
			problems = append(problems, builtin.Problem{
				Path: fmt.Sprintf("content_types[%d]", i), Message: "gRPC has a compression of its own, and clients know no other",
			})
		}
	}
	if len(problems) > 0 {
		return nil, problems
	}
	var parts []part.Part
	if len(s.Algorithms) > 2 {
		parts = append(parts, use.Lua(order, config.Value{"algorithms": v["algorithms"]}))
	}
	for i, algorithm := range s.Algorithms {
		c := compressor(algorithm, s)
		c.ChooseFirst = i == 0
		// The last one is the last to see the request; those before it need the header.
		c.ResponseDirectionConfig.RemoveAcceptEncodingHeader = s.RemoveAcceptEncoding && i == len(s.Algorithms)-1
		parts = append(parts, part.Native{Config: c})
	}
	return parts, nil
}

func compressor(algorithm string, s settings) *compressorv3.Compressor {
	library, err := anypb.New(libraries[algorithm])
	if err != nil {
		panic(err) // an empty message
	}
	return &compressorv3.Compressor{
		CompressorLibrary: &corev3.TypedExtensionConfig{Name: algorithm, TypedConfig: library},
		ResponseDirectionConfig: &compressorv3.Compressor_ResponseDirectionConfig{
			CommonConfig: &compressorv3.Compressor_CommonDirectionConfig{
				MinContentLength: wrapperspb.UInt32(s.MinLength),
				ContentType:      s.ContentTypes,
			},
			DisableOnEtagHeader: s.DisableOnEtag,
			// A range is one of the body as the upstream has it.
			UncompressibleResponseCodes: []uint32{http.StatusPartialContent},
		},
	}
}
