;; Loops, and calls the router at each turn, slowly enough to stay within the number of calls.
(func $process (result i32) (local $n i32)
  (loop $more
    (drop (call $payload-len))
    (local.set $n (i32.const 100000))
    (loop $turn (br_if $turn (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (br $more))
  (unreachable))
