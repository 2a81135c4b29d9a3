package annotation_test

import (
	"fmt"

	"github.com/istio-plugins/istio-plugins/pkg/annotation"
)

func ExampleParse() {
	entries, problem := annotation.Parse(`
- cors
- name: key-auth
  routes: [api]
  config: {key_names: [apikey]}
- name: bot-detection
  disabled: true
- name: ip-restriction
  alow: [10.0.0.0/8]
`)
	if problem != nil {
		fmt.Println(problem.Message)
		return
	}
	for _, e := range entries {
		fmt.Println(e.Place, e)
		for _, p := range e.Problems {
			fmt.Println("  " + p.Message)
		}
	}
	// Output:
	// [0] cors
	// [1] {"name":"key-auth","routes":["api"],"config":{"key_names":["apikey"]}}
	// [2] -bot-detection
	// [3] ip-restriction
	//   unknown field "alow", known ones are name, routes, config, disabled, override
}

func ExamplePrint() {
	entries, _ := annotation.Parse("[cors, {name: key-auth}, {name: bot-detection, disabled: true}]")
	fmt.Println(annotation.Print(entries))
	// Output: cors, key-auth, -bot-detection
}
