;; A proxy-wasm module that traps when a request has the header x-trap, and marks others with x-chain: trap.
(module
  (import "env" "proxy_get_header_map_value" (func $get_header (param i32 i32 i32 i32 i32) (result i32)))
  (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))

  (memory (export "memory") 4)
  (data (i32.const 16) "x-trap")
  (data (i32.const 32) "x-chain")

  ;; The only thing that is allocated is the header's value, which nobody reads.
  (func (export "malloc") (param $size i32) (result i32)
    (i32.const 65536))

  (func (export "proxy_abi_version_0_2_1"))
  (func (export "proxy_on_context_create") (param $context i32) (param $parent i32))
  (func (export "proxy_on_vm_start") (param $context i32) (param $size i32) (result i32)
    (i32.const 1))
  (func (export "proxy_on_configure") (param $context i32) (param $size i32) (result i32)
    (i32.const 1))

  (func (export "proxy_on_request_headers") (param $context i32) (param $count i32) (param $end i32) (result i32)
    ;; Map 0 holds the request's headers; 0 says that the header is there. Its value's place goes to 64 and 68.
    (if (i32.eqz (call $get_header (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 64) (i32.const 68)))
      (then unreachable))
    (drop (call $add_header (i32.const 0) (i32.const 32) (i32.const 7) (i32.const 18) (i32.const 4)))
    (i32.const 0))

  (func (export "proxy_on_done") (param $context i32) (result i32)
    (i32.const 1))
  (func (export "proxy_on_delete") (param $context i32))
)
