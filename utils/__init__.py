"""Pure leaf functions: no state, device taken from the inputs, nothing imported from the layers above."""
