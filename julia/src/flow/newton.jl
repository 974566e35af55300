# Newton's method for the equations y - b + step ∇L(y) = 0 of implicit steps, with a Hessian that may be older than y.

"""
    Newton{T,S}

- `system`: a [`ShiftedSystem`](@ref)
- `extra`: corrections beyond the first since the Hessian was taken, which tell whether it has become too old
- `rate`: how much closer the last correction came
"""
mutable struct Newton{T<:AbstractFloat,S<:ShiftedSystem{T}}
    system::S
    correction::Vector{T}
    gradient::Vector{T}
    extra::Int
    age::Int                 # accepted steps since the Hessian was taken, -1 without one
    rate::Float64
    γ::Float64               # what the system is prepared for
    h::Float64
end

Newton(system::S, ::Type{T}, n::Int) where {T,S<:ShiftedSystem{T}} =
    Newton{T,S}(system, zeros(T, n), zeros(T, n), 0, -1, 1.0, 0.0, 0.0)

const NEWTON_ITERATIONS = 5
const NEWTON_TOLERANCE = 0.02        # of the tolerance of a step

newton_tolerance(::Type{T}, state::FlowState) where {T} =
    max(NEWTON_TOLERANCE, 10 * Float64(eps(T)) / state.reltol)

"""
Whether the Hessian should be renewed: the corrections beyond the first that its age has cost have reached its own
price in gradients. Products are always taken at the current point.
"""
too_old(newton::Newton, problem::FlowProblem) =
    newton.age < 0 || newton.age > 0 && (newton.system isa KrylovSystem || newton.age > 50 ||
                                         newton.extra >= 3 + problem.n ÷ 60)

"After a step that failed: whether Newton's method did not converge, with a Hessian that is not of this point."
blames_hessian(newton::Newton) = newton.age > 0 && newton.h > 0

"Take the Hessian at `y` and prepare for the step, unless both were done before; `false` if no such step can be made."
function prepare!(newton::Newton, problem::FlowProblem, y, γ::Float64, h::Float64, escape::Float64, fresh::Bool)
    if fresh || newton.age < 0
        refresh!(newton.system, problem, y)
        newton.age = newton.extra = 0
        newton.h = 0.0
    end
    newton.γ == γ && newton.h == h && return true
    newton.h = 0.0
    prepare!(newton.system, γ, h, escape) || return false
    newton.γ, newton.h = γ, h
    return true
end

"""
    solve_newton!(y, newton, problem, state, b, last) -> Bool

`y` holds a prediction and becomes the solution of `y - b + γh ∇L(y) = 0`. If `last`, loss and gradient at the very `y`
that is returned are left in `state`: what costs an evaluation to check convergence serves the next step. Without
`last`, a solution that the rate of convergence promises is not checked.
"""
function solve_newton!(y::Vector{T}, newton::Newton{T}, problem::FlowProblem{T}, state::FlowState{T}, b::Vector{T},
                       last::Bool) where {T}
    system, u, g = newton.system, newton.correction, last ? state.gnew : newton.gradient
    tolerance = newton_tolerance(T, state)
    before = Inf
    for iteration in 0:NEWTON_ITERATIONS
        at = system isa KrylovSystem
        at && copyto!(system.point, y)
        if last && iteration > 0
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
        if !last && newton.rate < 1 && size * newton.rate / (1 - newton.rate) <= tolerance
            newton.extra += iteration
            return true
        end
    end
    return false
end
