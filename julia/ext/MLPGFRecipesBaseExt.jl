"""
Recipes for Plots.jl and whatever else reads RecipesBase: loss and gradient norm of a flow over time, of a minimisation
over iterations, on logarithmic axes.
"""
module MLPGFRecipesBaseExt

using MLPGF, RecipesBase
import MLPGF: FlowResult, MinimizeResult

# A logarithmic axis has no zero: neither the start nor a loss that has underflowed is drawn.
positive(values) = [v > 0 ? Float64(v) : NaN for v in values]

curves(x, r) = positive(x), hcat(positive(r.loss), positive(r.gnorm))

RecipesBase.@recipe function f(result::FlowResult)
    xguide --> "t"
    xscale --> :log10
    yscale --> :log10
    label --> ["loss" "gradient norm"]
    title --> result.alg
    curves(result.trajectory.t, result.trajectory)
end

RecipesBase.@recipe function f(result::MinimizeResult)
    xguide --> "iteration"
    yscale --> :log10
    label --> ["loss" "gradient norm"]
    title --> result.optim_solver
    result.trace.iteration, last(curves(1, result.trace))
end

end
