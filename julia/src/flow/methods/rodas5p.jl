"""
    Rodas5P()

Rosenbrock–Wanner method of order 5(4), L-stable and stiffly accurate, with an interpolant of order 4: eight
gradients, one exact Hessian and one Cholesky factorization a step.

G. Steinebach, *Construction of Rosenbrock–Wanner method Rodas5P and numerical benchmarks within the Julia
Differential Equations package*, BIT Numerical Mathematics 63:27 (2023). Its coefficients are published to 16
digits, so that in BigFloat the error of a step does not fall below 1e-15 of its length.

Along a direction of negative curvature, where the flow grows by e^z, z = -hλ > 0, the method's growth R(z)
is good to 1e-6 in its rate at z = 0.6 and 4e-5 at z = 1, but has the wrong sign from z = 2.6 on and falls
towards zero beyond its pole at z = 1/γ = 4.7: a long step would stay at a saddle for ever. Hence a step is
only made where `I + (h / z) H`, with z from the tolerance, is positive definite.
"""
struct Rodas5P <: FlowMethod end

const RODAS5P_GAMMA = 0.21193756319429014
const RODAS5P_A = (
    (3.0,),
    (2.849394379747939, 0.45842242204463923),
    (-6.954028509809101, 2.489845061869568, -10.358996098473584),
    (2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641),
    (-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256, 0.030198172008377946))
const RODAS5P_C = (
    (-14.155112264123755,),
    (-17.97296035885952, -2.859693295451294),
    (147.12150275711716, -1.41221402718213, 71.68940251302358),
    (165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306),
    (24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125, -0.6610691825249471),
    (30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783, -19.097331116725623,
     -28.087943162872662),
    (37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047, -40.06618937091002,
     -54.66780262877968, -9.48861652309627))
const RODAS5P_H = (
    (25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204, 0.524948541321073,
     1.1241088310450404, 0.4272876194431874, -0.17202221070155493),
    (-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796, 20.176138334709044,
     15.98066361424651, -6.789040303419874, -6.710236069923372),
    (11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643, -52.072871366152654,
     -59.78993625266729, -0.15582684282751913, 4.883087185713722))

mutable struct Rodas5PCache{T<:AbstractFloat} <: StepCache{T}
    a::Vector{Vector{T}}
    c::Vector{Vector{T}}
    dense::Vector{Vector{T}}
    system::DenseSystem{T}
    u::Vector{Vector{T}}
    gradient::Vector{T}
    fresh::Bool              # the Hessian belongs to state.y
end

function Rodas5PCache(::Type{T}, n::Int) where {T}
    rows(table) = Vector{T}[T[v for v in row] for row in table]
    return Rodas5PCache{T}(rows(RODAS5P_A), rows(RODAS5P_C), rows(RODAS5P_H), DenseSystem(T, n),
                           Vector{T}[zeros(T, n) for _ in 1:8], zeros(T, n), false)
end

make_state(::Rodas5P, ::Type{T}, n::Int) where {T} = Rodas5PCache(T, n)
method_name(::Rodas5PCache) = "Rodas5P"
controller(::Rodas5PCache) = Controller(true, 5)
interpolant_degree(::Rodas5PCache) = 4

# A fit to the error of log R(z) / z, 1e-6 at z = 0.6, 8.5e-4 at 1.5, above which it grows fast.
escape_limit(::Rodas5PCache, reltol::Float64) = clamp((reltol / 3.6e-5)^(1 / 7), 0.05, 1.5)
watch_escape(::Rodas5PCache) = false     # step! sees to it

function step!(cache::Rodas5PCache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    if !cache.fresh
        refresh!(cache.system, problem, state.y)
        cache.fresh = true
    end
    state.evaluated = false
    prepare!(cache.system, RODAS5P_GAMMA, state.h, state.escape) || return false
    # The stages solve (α I + β H) u = β f + α γ Σ c u, which is the same for (1, γh) and for (1/(γh), 1).
    β = cache.system.β
    αγ = RODAS5P_GAMMA * state.h <= 1 ? T(RODAS5P_GAMMA) : T(1 / state.h)
    u, y = cache.u, state.ynew
    for stage in 1:8
        if stage == 1
            solve_stage!(u[1], -β, state.g, cache)
            continue
        elseif stage <= 6
            combine!(y, state.y, one(T), cache.a[stage-1], u, stage - 1)
        else
            add_scaled!(y, one(T), u[stage-1])
        end
        gradient_at!(cache.gradient, problem, y)
        fill!(u[stage], zero(T))
        for j in 1:stage-1
            add_scaled!(u[stage], αγ * cache.c[stage-1][j], u[j])
        end
        add_scaled!(u[stage], -β, cache.gradient)
        cholesky_solve!(cache.system.W, u[stage])
    end
    add_scaled!(y, one(T), u[8])
    copyto!(state.err, u[8])
    return true
end

function solve_stage!(u, minus_β, g, cache)
    fill!(u, zero(minus_β))
    add_scaled!(u, minus_β, g)
    cholesky_solve!(cache.system.W, u)
    return u
end

function accepted!(cache::Rodas5PCache)
    cache.fresh = false
    return nothing
end

# The method has no limit of stability.
function measure!(::Rodas5PCache, state::FlowState)
    state.stiffness = 0.0
    state.longest = Inf
    return nothing
end

# y0 (1 - s) + s (y1 + (1 - s) (K1 + s (K2 + s K3))) with K_m = Σ_j dense[m][j] u_j, by powers of s.
function interpolant!(c::Vector{T}, offset::Int, cache::Rodas5PCache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    n = problem.n
    u, dense, y0, y1 = cache.u, cache.dense, state.y, state.ynew
    for i in 1:n
        k1, k2, k3 = zero(T), zero(T), zero(T)
        for j in 1:8
            k1 += dense[1][j] * u[j][i]
            k2 += dense[2][j] * u[j][i]
            k3 += dense[3][j] * u[j][i]
        end
        c[offset+i] = y0[i]
        c[offset+n+i] = y1[i] - y0[i] + k1
        c[offset+2n+i] = k2 - k1
        c[offset+3n+i] = k3 - k2
        c[offset+4n+i] = -k3
    end
    return nothing
end

register!(FLOW_METHODS, "Rodas5P", Rodas5P(),
          "Rosenbrock method of order 5 with the exact Hessian, for stiff flows (Steinebach 2023)"; matrices=2,
          when="late times with small nets")
