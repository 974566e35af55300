# Newton's method for the equations y - b + step ∇L(y) = 0 of implicit steps, with a Hessian that may be older than y.

"""
    StageNewton{T,S}

- `system`: a [`ShiftedSystem`](@ref)
- `extra`: corrections beyond the first since the Hessian was taken, which tell whether it has become too old
- `rate`: how much closer the last correction came
"""
mutable struct StageNewton{T<:AbstractFloat,S<:ShiftedSystem{T}}
    system::S
    correction::Vector{T}
    gradient::Vector{T}
    extra::Int
    age::Int                 # accepted steps since the Hessian was taken, -1 without one
    rate::Float64
    unchecked::Int           # solutions in a row that were believed, not checked
    γ::Float64               # what the system is prepared for
    h::Float64
end

StageNewton(system::S, ::Type{T}, n::Int) where {T,S<:ShiftedSystem{T}} =
    StageNewton{T,S}(system, zeros(T, n), zeros(T, n), 0, -1, 1.0, 0, 0.0, 0.0)

const NEWTON_ITERATIONS = 5
const NEWTON_TOLERANCE = 0.02        # of the tolerance of a step
const UNCHECKED = 5

newton_tolerance(::Type{T}, state::FlowState) where {T} =
    max(NEWTON_TOLERANCE, 10 * Float64(eps(T)) / state.reltol)

"""
Whether the Hessian should be renewed: the corrections beyond the first that its age has cost have reached its own
price in gradients. Products are always taken at the current point.
"""
too_old(newton::StageNewton, problem::FlowProblem) =
    newton.age < 0 || newton.age > 0 && (newton.system isa KrylovSystem || newton.age > 50 ||
                                         newton.extra >= 3 + problem.n ÷ 60)

"After a step that failed: whether Newton's method did not converge, with a Hessian that is not of this point."
blames_hessian(newton::StageNewton) = newton.age > 0 && newton.h > 0

"Take the Hessian at `y` and prepare for the step, unless both were done before; `false` if no such step can be made."
function prepare!(newton::StageNewton, problem::FlowProblem, y, γ::Float64, h::Float64, escape::Float64, fresh::Bool)
    if fresh || newton.age < 0
        refresh!(newton.system, problem, y)
        newton.age = newton.extra = 0
        newton.h = 0.0
    end
    newton.γ == γ && newton.h == h && return true
    newton.h = 0.0
    prepare!(newton.system, γ, h, escape) || return false
    newton.γ, newton.h = γ, h
    newton.unchecked = UNCHECKED
    return true
end

"""
    solve_newton!(y, newton, problem, state, b, last) -> Bool

`y` holds a prediction and becomes the solution of `y - b + γh ∇L(y) = 0`. If `last`, loss and gradient at the very `y`
that is returned are left in `state`. A solution that the rate of convergence promises after one correction is believed,
up to `UNCHECKED` times in a row and with the same matrix, and then loss and gradient are those of the quadratic model
around the prediction: at a distance of the size of the tolerance the loss is exact to round-off.
"""
function solve_newton!(y::Vector{T}, newton::StageNewton{T}, problem::FlowProblem{T}, state::FlowState{T}, b::Vector{T},
                       last::Bool) where {T}
    system, u, g = newton.system, newton.correction, last ? state.gnew : newton.gradient
    tolerance = newton_tolerance(T, state)
    before = Inf
    believe = newton.unchecked < UNCHECKED && system isa DenseSystem && !(last && state.exact)
    for iteration in 0:NEWTON_ITERATIONS
        at = system isa KrylovSystem
        at && copyto!(system.point, y)
        if last && (iteration > 0 || believe)
            value_and_gradient_at!(g, problem, y)
            state.lossnew = problem.value[]
            state.gnormnew = problem.gnorm
        else
            gradient_at!(g, problem, y)
        end
        α, β = system.α, system.β
        @inbounds @simd for i in eachindex(u)
            u[i] = α * (b[i] - y[i]) - β * g[i]
        end
        # With products only a solve is dear, and the residual bounds the correction where H is positive.
        if at && iteration > 0 && point_norm(u, problem, state) <= tolerance * Float64(α)
            state.evaluated = last
            return true
        end
        solve_shifted!(u, system, problem, state, 0.3 * tolerance) || return false
        size = point_norm(u, problem, state)
        isfinite(size) || return false
        if iteration > 0
            if size <= tolerance
                newton.extra += iteration - 1
                newton.unchecked = 0
                newton.rate = max(0.3 * newton.rate, size / before)
                state.evaluated = last
                return true
            end
            newton.rate = size / before
            # Not converging, or not in the iterations that are left.
            size > 0.9 * before && return false
        end
        add_scaled!(y, one(T), u)
        before = size
        if believe && iteration == 0 && newton.rate < 0.3 && 3 * size * newton.rate <= tolerance
            newton.unchecked += 1
            last && model_gradient!(g, problem, state, y, b, u, α / β)
            return true
        end
    end
    return false
end

# With (I + γhH) u = -residual at the prediction, ∇L there plus H u is (b - y)/γh, and the quadratic model of the loss
# its change along u by the trapezoid.
function model_gradient!(g::Vector{T}, problem::FlowProblem{T}, state::FlowState{T}, y, b, u, inverse_step::T) where {T}
    change = zero(T)
    largest = 0.0
    @inbounds for i in eachindex(g)
        slope = (b[i] - y[i]) * inverse_step
        change += (g[i] + slope) * u[i]
        g[i] = slope
        largest = max(largest, abs(Float64(slope / problem.root[i])))
    end
    state.lossnew = problem.value[] + change / 2
    state.gnormnew = largest
    state.evaluated = state.estimated = true
    return nothing
end
