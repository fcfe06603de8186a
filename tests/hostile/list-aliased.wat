;; Emits a message with 100,000 headers, which are all the same bytes.
(memory $memory 40)
(data (i32.const 1024) "x")
(func $process (result i32) (local $at i32)
  (local.set $at (i32.const 8192))
  (loop $more
    (i32.store offset=0 (local.get $at) (i32.const 16384)) (i32.store offset=4 (local.get $at) (i32.const 1000000))
    (i32.store offset=8 (local.get $at) (i32.const 16384)) (i32.store offset=12 (local.get $at) (i32.const 1000000))
    (br_if $more (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 16))) (i32.const 1608192))))
  (call $publish (i32.const 1024) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)
    (i32.const 8192) (i32.const 100000) (i32.const 0) (i32.const 0) (i32.const 64))
  (i32.const 0))
