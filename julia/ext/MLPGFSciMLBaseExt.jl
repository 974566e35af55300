"""
Both ways between SciMLBase's interface and ours. The algorithms of OrdinaryDiffEq's component packages and of Sundials
as methods of `flow`: their integrator makes the steps, our loop keeps time, records, asks the callback and decides when
to stop. And nets as problems of theirs, with all derivatives (sciml_problems.jl).
"""
module MLPGFSciMLBaseExt

using MLPGF, SciMLBase
import LinearAlgebra
import MLPGF: AbstractNet, FlowMethod, FlowProblem, FlowState, StepCache, hessian_at!, hvp_at!, value_and_gradient_at!
import SciMLBase: ODEFunction, ODEProblem, OptimizationFunction, OptimizationProblem

include("sciml_problems.jl")

struct SciMLMethod{A<:SciMLBase.AbstractODEAlgorithm} <: FlowMethod
    alg::A
end

MLPGF.flow_method(alg::SciMLBase.AbstractODEAlgorithm) = SciMLMethod(alg)
MLPGF.provider(::SciMLMethod) = "sciml"

# By name, CVODE_BDF without a matrix: its own dense solver would difference the gradient.
MLPGF.named_flow_method(::Val{:Sundials}, package, method) =
    SciMLMethod(getfield(package, Symbol(method))(; linear_solver=:GMRES))

# The interpolants are polynomials of different degrees, or none: what they give at these points of a step, fitted.
const DEGREE = 6
const NODES = [(1 - cospi(j / DEGREE)) / 2 for j in 0:DEGREE]
const TO_COEFFICIENTS = inv([s^m for s in NODES, m in 0:DEGREE])

mutable struct SciMLCache{T,A} <: StepCache{T}
    alg::A
    integrator::Any
    y::Vector{T}          # the last point that the integrator evaluated, and its loss and gradient
    g::Vector{T}
    loss::T
    gnorm::Float64
end

MLPGF.make_state(method::SciMLMethod{A}, ::Type{T}, n::Int) where {T,A} =
    SciMLCache{T,A}(method.alg, nothing, fill(T(NaN), n), zeros(T, n), T(NaN), NaN)
MLPGF.method_name(cache::SciMLCache) = String(nameof(typeof(cache.alg)))
MLPGF.controller(::SciMLCache) = MLPGF.Controller(false, 2)         # for the first step only
MLPGF.escape_limit(::SciMLCache, reltol::Float64) = Inf
MLPGF.watch_escape(::SciMLCache) = false
MLPGF.interpolant_degree(::SciMLCache) = DEGREE
MLPGF.measure!(::SciMLCache, state::FlowState) = (state.stiffness = 0.0; state.longest = Inf; nothing)
MLPGF.next_factor!(::SciMLCache, control, state, problem, clean::Bool, indefinite::Bool) = (state.factor = 1.0; nothing)
function MLPGF.rejections(cache::SciMLCache)
    cache.integrator === nothing && return 0
    stats = cache.integrator.sol.stats
    return stats === nothing ? 0 : Int(max(stats.nreject, 0))
end

function evaluate!(cache::SciMLCache{T}, problem::FlowProblem{T}, y) where {T}
    cache.y == y && return nothing
    copyto!(cache.y, y)
    value_and_gradient_at!(cache.g, problem, cache.y)
    cache.loss, cache.gnorm = problem.value[], problem.gnorm
    return nothing
end

# From SciMLBase 3 on `verbose` takes an object of another package; what is logged goes nowhere with every version.
const VERBOSITY = pkgversion(SciMLBase) < v"3" ? (verbose=false,) : NamedTuple()
quietly(f, arguments...; options...) =
    Base.CoreLogging.with_logger(() -> f(arguments...; options...), Base.CoreLogging.NullLogger())

function begin!(cache::SciMLCache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    copyto!(cache.y, state.y)
    copyto!(cache.g, state.g)
    cache.loss, cache.gnorm = state.loss, state.gnorm
    velocity!(du, u, _, t) = (evaluate!(cache, problem, u); @. du = -cache.g; nothing)
    product!(Jv, v, u, _, t) = (hvp_at!(Jv, problem, convert(Vector{T}, u), convert(Vector{T}, v)); Jv .*= -1; nothing)
    function jacobian!(J, u, _, t)
        hessian_at!(J, problem, u)
        LinearAlgebra.copytri!(J, 'L')
        J .*= -1
        return nothing
    end
    nothing_in_time!(dT, u, _, t) = (fill!(dT, 0); nothing)
    f = ODEFunction{true,SciMLBase.FullSpecialize}(velocity!; jac=jacobian!, tgrad=nothing_in_time!, jvp=product!,
                                                   vjp=product!)
    # In y the tolerance of a parameter is abstol / root.
    abstol = problem.scaled ? T[state.abstol / r for r in problem.root] : T(state.abstol)
    cache.integrator = quietly(SciMLBase.init, ODEProblem(f, copy(state.y), (state.t, state.t_end)),
                               cache.alg; abstol=abstol,
        reltol=T(state.reltol), dt=state.h, save_everystep=false, save_start=false, save_end=false,
        dense=state.continuous,        # else their BDF methods do not keep what they interpolate with
        maxiters=typemax(Int), VERBOSITY...)
    return nothing
end

"A step of whatever length the integrator chooses; its own estimate is trusted."
function MLPGF.try_step!(cache::SciMLCache, problem::FlowProblem, state::FlowState, failures::Int)
    cache.integrator === nothing && begin!(cache, problem, state)
    integrator = cache.integrator
    quietly(SciMLBase.step!, integrator)
    state.h = (integrator.t - state.t) - state.t_low
    state.error = 0.0
    fill!(state.err, 0)
    copyto!(state.ynew, integrator.u)
    if state.h > 0 && all(isfinite, state.ynew)
        evaluate!(cache, problem, state.ynew)
        copyto!(state.gnew, cache.g)
        state.lossnew, state.gnormnew = cache.loss, cache.gnorm
        state.evaluated, state.estimated = true, false
        isfinite(state.lossnew) && isfinite(state.gnormnew) && return MLPGF.GOOD
    end
    # It cannot go on, and will not recover: the flow ends here, at a point where nothing moves or at a wall.
    state.h = 0.0
    return all(isfinite, state.ynew) && isfinite(cache.loss) ? MLPGF.TOO_WRONG : MLPGF.NOT_FINITE
end

function MLPGF.interpolant!(c::Vector{T}, offset::Int, cache::SciMLCache{T}, problem::FlowProblem{T},
                            state::FlowState{T}) where {T}
    n = problem.n
    values = zeros(T, n, DEGREE + 1)
    for (j, s) in enumerate(NODES)
        if j == 1
            copyto!(view(values, :, j), state.y)
        elseif j == DEGREE + 1
            copyto!(view(values, :, j), state.ynew)
        else
            copyto!(view(values, :, j), cache.integrator(state.t + s * state.h))
        end
    end
    for m in 0:DEGREE, i in 1:n
        c[offset+m*n+i] = sum(TO_COEFFICIENTS[m+1, j] * values[i, j] for j in 1:DEGREE+1)
    end
    return nothing
end

end
