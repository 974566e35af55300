"""
NLopt's gradient-based algorithms for `minimize`, such as `NLopt.LD_SLSQP`. An iteration is an evaluation here: NLopt
tells nothing else.
"""
module MLPGFNLoptExt

using MLPGF, NLopt
import MLPGF: MinimizeMethod, Objective, Search, Stop

struct NLoptMethod <: MinimizeMethod
    algorithm::NLopt.Algorithm
    options::NamedTuple
end
NLoptMethod(algorithm) = NLoptMethod(algorithm, NamedTuple())

function MLPGF.minimize_method(algorithm::NLopt.Algorithm)
    startswith(string(algorithm), "LD_") ||
        throw(ArgumentError("optim_solver = $algorithm: of NLopt the algorithms LD_…, local and with gradients, are " *
                            "of use here"))
    return NLoptMethod(algorithm)
end
MLPGF.named_minimize_method(::Val{:NLopt}, package, method) = NLoptMethod(getfield(package, Symbol("LD_", method)))
function MLPGF.with_options(method::NLoptMethod, options)
    given = MLPGF.named_options(options)
    try
        set_options!(NLopt.Opt(method.algorithm, 1), given)
    catch failure
        throw(ArgumentError("optim_options cannot be given to NLopt: $(sprint(showerror, failure))"))
    end
    return NLoptMethod(method.algorithm, given)
end

function set_options!(optimizer, options)
    for (name, value) in pairs(options)
        name in propertynames(optimizer) || throw(ArgumentError("it has no option $name"))
        setproperty!(optimizer, name, value)
    end
    return optimizer
end

MLPGF.provider(::NLoptMethod) = "nlopt"
MLPGF.method_name(method::NLoptMethod) = String(split(string(method.algorithm), '_'; limit=2)[2])

function MLPGF.pursue!(search::Search{T}, objective::Objective{T}, method::NLoptMethod, iterations::Int) where {T}
    best = search.best
    n = length(best.x)
    point, gradient = copy(best.x), zeros(T, n)
    begun, idle, stop = false, 0, Stop.running
    function evaluate(x, g)
        copyto!(point, x)
        loss = MLPGF.evaluate!(gradient, objective, point)
        gnorm = MLPGF.supnorm(gradient)
        finite = begun || MLPGF.begin!(search, loss, gnorm)
        idle = MLPGF.offer!(best, point, loss, gnorm) ? 0 : idle + 1
        begun && MLPGF.record!(search.trace, search.iteration, best.loss, best.gnorm)
        begun = true
        stop = finite ? MLPGF.check_limits(best, objective, search.limits, search.iteration, idle, search.monitor) :
               Stop.diverged
        stop == Stop.running || throw(NLopt.ForcedStop())
        search.iteration += 1
        isempty(g) || copyto!(g, gradient)
        return Float64(loss)
    end
    optimizer = set_options!(NLopt.Opt(method.algorithm, n), method.options)
    NLopt.min_objective!(optimizer, evaluate)
    NLopt.optimize(optimizer, Vector{Float64}(best.x))
    stop == Stop.running || return stop
    return isempty(method.options) ? Stop.roundoff : Stop.patience
end

end
