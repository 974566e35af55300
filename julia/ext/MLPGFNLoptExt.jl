"""
NLopt's gradient-based algorithms for `minimize`, such as `NLopt.LD_SLSQP`. An iteration is an evaluation here: NLopt tells
nothing else.
"""
module MLPGFNLoptExt

using MLPGF, NLopt
import MLPGF: BestPoint, Limits, MinimizeMethod, MinimizeTrace, Monitor, Objective, Stop

struct NLoptMethod <: MinimizeMethod
    algorithm::NLopt.Algorithm
end

function MLPGF.minimize_method(algorithm::NLopt.Algorithm)
    startswith(string(algorithm), "LD_") ||
        throw(ArgumentError("optim_solver = $algorithm: of NLopt the algorithms LD_…, local and with gradients, are of use here"))
    return NLoptMethod(algorithm)
end
MLPGF.named_minimize_method(::Val{:NLopt}, package, method) = NLoptMethod(getfield(package, Symbol("LD_", method)))
MLPGF.provider(::NLoptMethod) = "nlopt"
MLPGF.name(method::NLoptMethod) = String(split(string(method.algorithm), '_'; limit=2)[2])

mutable struct Evaluated{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::T
end
MLPGF.at_saddle!(::Evaluated, ::Objective) = false

function MLPGF.search!(best::BestPoint{T}, trace::MinimizeTrace, iteration::Base.RefValue{Int}, objective::Objective{T},
                       method::NLoptMethod, limits::Limits{T}, monitor::Monitor) where {T}
    n = length(best.x)
    point, gradient = Evaluated{T}(copy(best.x), T(NaN), T(NaN)), zeros(T, n)
    best.lowest_loss = best.lowest_gnorm = T(Inf)
    idle, stop = 0, Stop.running
    function evaluate(x, g)
        copyto!(point.x, x)
        point.loss = MLPGF.evaluate!(gradient, objective, point.x)
        point.gnorm = MLPGF.supnorm(gradient)
        idle = MLPGF.offer!(best, point.x, point.loss, point.gnorm) ? 0 : idle + 1
        MLPGF.record!(trace, iteration[], best.loss, best.gnorm)
        stop = isfinite(point.loss) || iteration[] > 0 ?
               MLPGF.check_limits(point, objective, limits, iteration[], idle, monitor) : Stop.diverged
        stop == Stop.running || throw(NLopt.ForcedStop())
        iteration[] += 1
        isempty(g) || copyto!(g, gradient)
        return Float64(point.loss)
    end
    optimizer = NLopt.Opt(method.algorithm, n)
    NLopt.min_objective!(optimizer, evaluate)
    NLopt.optimize(optimizer, Vector{Float64}(best.x))
    return stop == Stop.running ? Stop.roundoff : stop
end

end
