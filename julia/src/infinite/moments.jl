# What a pair of units contributes to loss, gradient and Hessian.

"""
    PairSums

`epq` is E[f⁽ᵖ⁾(h₁) g⁽ᵠ⁾(h₂)], times r₁ for each derivative of f beyond the second and r₂ for each of g.
"""
mutable struct PairSums{S}
    e00::S
    e10::S
    e01::S
    e20::S
    e11::S
    e02::S
    e30::S
    e21::S
    e12::S
    e03::S
    e40::S
    e31::S
    e22::S
    e13::S
    e04::S
end
PairSums{S}() where {S} = PairSums{S}(ntuple(_ -> zero(S), 15)...)

"""
    Moments

For F = f g it holds E[F] = `m00`, and for F = f⁽ᵖ⁾ g⁽ᵠ⁾, p + q ≤ 2, `mpq` = E[F] with

    E[F x] = xpq v₁ + ypq v₂
    E[F (x xᵀ - 1)] = xxpq v₁v₁ᵀ + xypq (v₁v₂ᵀ + v₂v₁ᵀ) + yypq v₂v₂ᵀ

in the basis `v1`, `v2` that suits the rule: the units' own directions, or an orthonormal one, in which all numbers stay
finite when the directions meet.
"""
mutable struct Moments{S}
    m00::S
    m10::S
    x10::S
    y10::S
    m01::S
    x01::S
    y01::S
    m11::S
    x11::S
    y11::S
    xx11::S
    xy11::S
    yy11::S
    m20::S
    x20::S
    y20::S
    xx20::S
    xy20::S
    yy20::S
    m02::S
    x02::S
    y02::S
    xx02::S
    xy02::S
    yy02::S
    v1::Vector{S}
    v2::Vector{S}
end
Moments{S}(D::Int) where {S} = Moments{S}(ntuple(_ -> zero(S), 25)..., zeros(S, D), zeros(S, D))

"Moments from sums, by integration by parts (Stein's lemma): E[F x] = E[∂F/∂h₁] w₁ + E[∂F/∂h₂] w₂."
function from_sums!(m::Moments, e::PairSums, p::Neuron, q::Neuron, order::Int)
    a, b = p.r, q.r
    m.m00 = e.e00
    order == 0 && return m
    copyto!(m.v1, p.n)
    copyto!(m.v2, q.n)
    m.m10, m.x10, m.y10 = e.e10, a * e.e20, b * e.e11
    m.m01, m.x01, m.y01 = e.e01, a * e.e11, b * e.e02
    order == 1 && return m
    m.m11, m.x11, m.y11 = e.e11, a * e.e21, b * e.e12
    m.xx11, m.xy11, m.yy11 = a * e.e31, a * b * e.e22, b * e.e13
    m.m20, m.x20, m.y20 = e.e20, e.e30, b * e.e21
    m.xx20, m.xy20, m.yy20 = e.e40, b * e.e31, b * b * e.e22
    m.m02, m.x02, m.y02 = e.e02, a * e.e12, e.e03
    m.xx02, m.xy02, m.yy02 = a * a * e.e22, a * e.e13, e.e04
    return m
end

"""
    orthonormal!(m, p, q, u) -> s

Basis v₁ = n₁ and v₂ ⟂ v₁ with n₂ = u v₁ + s v₂. From the difference of the directions, not √(1 - u²): s keeps its
digits when they meet, and is zero with v₂ = 0 when they are equal.
"""
function orthonormal!(m::Moments{S}, p::Neuron, q::Neuron, u) where {S}
    v1, v2 = copyto!(m.v1, p.n), m.v2
    p === q && (fill!(v2, zero(S)); return zero(S))
    s = zero(S)
    @inbounds for d in eachindex(v1)
        v2[d] = muladd(-u, v1[d], q.n[d])
        s = muladd(v2[d], v2[d], s)
    end
    s = sqrt(s)
    negligible(s) && (fill!(v2, zero(S)); return zero(S))
    @inbounds for d in eachindex(v1)
        v2[d] = v2[d] / s
    end
    return s
end

"Whether directions differ by rounding only."
negligible(s::Float64) = s < 1e-15

"Components by (v₁, v₂) of x n₂ + y ê, where ê = s v₁ - u v₂ completes n₂ = u v₁ + s v₂."
turn(u, s, x, y) = (u * x + s * y, s * x - u * y)
turn(u, s, xx, xy, yy) = (u * u * xx + 2u * s * xy + s * s * yy, u * s * (xx - yy) + (s * s - u * u) * xy,
                          s * s * xx - 2u * s * xy + u * u * yy)
