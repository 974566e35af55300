# What a method of `flow`, discrete or not, and of `minimize` implements. A method is a struct of what the user chose;
# what changes from step to step is in its state. Each family adds functions of its own: see StepCache, DiscreteMethod
# and MinimizeMethod.

"""
    make_state(method, T, n)                # FlowMethod -> StepCache{T}, DiscreteMethod
    make_state(method, objective, x0)       # MinimizeMethod

What `method` remembers from step to step, and its buffers, for `n` parameters of type `T`, or for a search from `x0`.
The state of a minimizer has the fields `x`, `gradient`, `loss` and `gnorm` (‖∇L‖_∞) of its present point.
"""
function make_state end

"""
    step!(state, problem, point) -> Bool                # FlowMethod
    step!(state, x, g, rates, clock)                    # DiscreteMethod
    step!(state, objective, method) -> Stop.Reason      # MinimizeMethod

One step. That of a flow is a trial from `point.y`, a [`FlowState`](@ref), which the loop accepts or rejects; a discrete
one moves `x`. A minimizer accepts or rejects its own trial, by the rules of `minimize/acceptance.jl`, and returns
`Stop.running` where it can go on. Nothing allocates.
"""
function step! end

"""
    accepted!(state, …)

The trial step was accepted. By default a flow's method has nothing to note; for minimizers the trial point becomes the
present one.
"""
function accepted! end

"""
    method_name(method)

The name by which results call the method. A flow's method is asked by its state, since some have several variants.
"""
function method_name end
