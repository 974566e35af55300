"""
    TRBDF2(; linsolve = :auto)

One trapezoidal step to 2 - √2 of the step and one of BDF2 to its end: order 2(3), L-stable and stiffly accurate, with a
cubic interpolant. Its two implicit stages share one matrix, which is kept while Newton's method converges well.

`linsolve`: `:cholesky` factors `I + γhH`, `:krylov` uses Hessian-vector products in memory proportional to P, `:auto`
the former for small nets and the latter for large ones.

M. E. Hosea and L. F. Shampine, *Analysis and implementation of TR-BDF2*, Applied Numerical Mathematics 20 (1996)
21–37.
"""
struct TRBDF2 <: FlowMethod
    linsolve::Symbol
    TRBDF2(; linsolve::Symbol=:auto) = new(check_linsolve(linsolve))
end

mutable struct TRBDF2Cache{T<:AbstractFloat,S<:ShiftedSystem{T}} <: StepCache{T}
    newton::StageNewton{T,S}
    # h times the derivative at the start of the step, at the stage between and at the end, the last two from the
    # equations of the stages: the gradient would multiply the error of a stiff component by hλ.
    z1::Vector{T}
    z2::Vector{T}
    z3::Vector{T}
    middle::Vector{T}
    b::Vector{T}
    h::Float64               # the step z3 belongs to, zero before the first
end

function make_state(alg::TRBDF2, ::Type{T}, n::Int) where {T}
    system = shifted_system(T, n, alg.linsolve)
    return TRBDF2Cache(StageNewton(system, T, n), zeros(T, n), zeros(T, n), zeros(T, n), zeros(T, n), zeros(T, n), 0.0)
end

method_name(cache::TRBDF2Cache) = "TRBDF2" * name_suffix(cache.newton.system)
controller(::TRBDF2Cache) = Controller(true, 3)
interpolant_degree(::TRBDF2Cache) = 3

const TRBDF2_GAMMA = 2 - sqrt(2.0)

# The method's growth along e^z is off by 0.04 z² in its rate.
escape_limit(::TRBDF2Cache, reltol::Float64) = clamp((reltol / 0.04)^(1 / 2), 0.01, 1.0)
watch_escape(cache::TRBDF2Cache) = cache.newton.system isa KrylovSystem

function step!(cache::TRBDF2Cache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    old = too_old(cache.newton, problem)
    step!(cache, problem, state, old) && return true
    return !old && blames_hessian(cache.newton) && step!(cache, problem, state, true)
end

function step!(cache::TRBDF2Cache{T}, problem::FlowProblem{T}, state::FlowState{T}, fresh::Bool) where {T}
    newton, z1, z2, z3, b, y, middle = cache.newton, cache.z1, cache.z2, cache.z3, cache.b, state.y, cache.middle
    h = state.h
    state.evaluated = false
    γ = 2 - sqrt(T(2))
    d, w = γ / 2, sqrt(T(2)) / 4
    prepare!(newton, problem, y, Float64(d), h, state.escape, fresh) || return false
    ht = T(min(h, Float64(floatmax(T)) / 1e3))
    if cache.h > 0
        @. z1 = T(h / cache.h) * z3
    else
        @. z1 = -ht * state.g
    end
    @. b = y + d * z1
    @. middle = y + γ * z1
    solve_newton!(middle, newton, problem, state, b, false) || return false
    @. z2 = (middle - b) / d
    @. b = y + w * (z1 + z2)
    # The Hermite polynomial of the first stage, continued.
    s = 1 / γ
    @. state.ynew = y + s^2 * (3 - 2s) * (middle - y) + γ * s * ((s - 1)^2 * z1 + s * (s - 1) * z2)
    solve_newton!(state.ynew, newton, problem, state, b, true) || return false
    @. state.err = (state.ynew - b) / d
    # The difference to the formula of order 3, filtered so that it doesn't exaggerate what is stiff (Hosea and
    # Shampine).
    α = newton.system.α
    e1, e2, e3 = w - (1 - w) / 3, w - (3w + 1) / 3, d - d / 3
    @. state.err = α * (e1 * z1 + e2 * z2 + e3 * state.err)
    return solve_shifted!(state.err, newton.system, problem, state, 0.1)
end

# z1, z2 and the stage between belong to the trial step: z3 is made here, where the step is taken.
function measure!(cache::TRBDF2Cache{T}, state::FlowState{T}) where {T}
    d = 1 - sqrt(T(2)) / 2
    @. cache.z3 = (state.ynew - cache.b) / d
    cache.h = state.h
    state.stiffness = 0.0
    state.longest = Inf
    return nothing
end

function accepted!(cache::TRBDF2Cache)
    cache.newton.age += 1
    return nothing
end

function restart!(cache::TRBDF2Cache)
    cache.newton.age, cache.h = -1, 0.0
    return nothing
end

function interpolant!(c::Vector{T}, offset::Int, cache::TRBDF2Cache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    d = 1 - sqrt(T(2)) / 2
    @. cache.middle = (state.ynew - cache.b) / d
    hermite!(c, offset, state.y, state.ynew, cache.z1, cache.middle, one(T))
    return nothing
end

register!(FLOW_METHODS, "TRBDF2", TRBDF2(),
          "implicit method of order 2, with Hessian-vector products for large nets (Bank et al. 1985)";
          when="loose tolerances; Hessian-vector products beyond $DENSE_LIMIT parameters")
